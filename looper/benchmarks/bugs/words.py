"""Words of the generator: pools for names and values, reserved words, and invented words."""

from __future__ import annotations

import builtins
import keyword
import sys
from collections.abc import Callable
from random import Random

PAIRS: tuple[tuple[str, str], ...] = (
    ("main", "backup"),
    ("fast", "slow"),
    ("real", "fake"),
    ("north", "south"),
    ("red", "blue"),
    ("alpha", "omega"),
    ("east", "west"),
    ("day", "night"),
    ("warm", "cold"),
    ("gold", "silver"),
    ("hard", "soft"),
    ("sun", "moon"),
)
"""Candidate tree names of the evaluated two-copy families; their words occur nowhere in the training mix."""

MIX_NOUNS: tuple[str, ...] = tuple(
    """
    abbey account acre action adapter address advice affair agent airport album alley alloy altar amount anchor
    angle anthem apple archer area arena array arrow article artist aspect asset attic auction audio author autumn
    avenue award axis badge bakery balance ballad ballot bamboo band bank banner barn barrel barrier base basin
    batch battery beach beam bearing bell belt bench beverage bicycle bill bird biscuit bishop blade blanket blend
    block blueprint board body bolt bone bonus book boot border bottle boulevard bound box bracket branch brand
    brass bread breeze bribe brick bride bridge brief brigade broker brush bubble bucket budget buffer bulletin
    bundle bunker bureau burst button byte cabin cabinet cable cache cactus cadence call camera camp canal candle
    canvas cape capital capsule carbon card career cargo carpet carriage carton cartoon case cashier casino cattle
    ceiling cell cement ceramic certificate chain chair chalk chamber champion change channel chapel chapter
    charcoal charity chart check cherry chess chief choir chord chorus cinema circle circuit citizen city claim
    class clause clay client cliff climate clinic clock cloth cloud cluster coach coal coat cobweb cocoa code coffee
    coin collar colony color column comet comfort comma comment commerce commission committee compound compromise
    concept concert concrete conduct confetti congress contest context contract contrast convoy cord corner corridor
    cost cotton council count counter couple courier course court cousin cover craft crane crate crayon creature
    credit creek crew crime crop crown cruise crumb crust cube culture cupboard curb currency cursor curtain curve
    cushion custom customer cycle cylinder dairy damage dance danger data daughter dawn deal debate debt decade
    decoder degree delay delegate demand density deposit depth deputy desert desk dessert detail detour device
    dialog diamond diary diet digit dinner diploma discount dish disk dispute distance ditch dock doctor document
    domain donor door dozen draft dragon drama drawer dress drill drive drum dune dust duty dynasty eagle earth
    eclipse economy edge editor effect effort elbow election element elevator emblem emission empire encoder enemy
    energy engine entry enzyme episode equity eraser error estate evening event evidence exam exhibit expert export
    fabric facade factor factory faculty fairy faith fame fashion fate faucet favor feature fee ferry fiber fiction
    field figure file filter flag fleece flight flock floor flour flow fluid foil folder folk font form fortune
    fossil fraction frame frost fruit fuel function furnace galaxy gallery gap garage garden garment gas gate gear
    gene genre ghost giraffe glass glory glove glue goat gorge gospel gossip grade grain grammar granite graph
    gravel gravity grid grocery group guard guest guide guild guitar habit hammer handful handle harness harp hat
    hazard head header height helmet herald heritage hero hobby hook horizon horn hospital hotel hour house humor
    hunter husband hybrid icon idea idiom image impulse income index infant ink input insect insight interval
    invoice item itinerary jacket jar jelly jewel job jockey join journey jump jury justice keeper kernel keyboard
    kingdom kiosk kitchen knife knight knot label laboratory lace ladder lamp landmark lane laser lawyer layer
    leader leaf league leather lecture ledger legend length lens leopard lesson letter level liberty library
    lightning limit line link list load loan lock log logic loop lottery lounge luggage lumber lunch lyric machine
    magazine magnet mail mammal manager mango mansion manual map margin mark market mask matrix mayor meal medal
    medicine member memory mentor menu merchant message meteor meter method metric midnight mill mineral minister
    minority minute mission mixture moat mode model modem module moment monarch monitor month monument mortgage
    mosaic motor muscle museum mustard mystery myth name napkin nation needle neighbor nerve nest network nickel
    node noodle norm note notion number nurse oath object ocean octave odor offer office offset olympic opera
    opinion option oracle orbit order organ origin outlet owner oxygen package packet paddle page pair palace
    palette panel panic paper parade paradox parcel parent parking parsley part party passage passport pasta pastry
    patent path patient patrol pattern pause payment peach peak pedal penalty pencil penguin perfume period
    person petition pharmacy phase phone physics piano picture piece pigeon pilgrim pioneer pipeline pirate pistol
    pixel pizza place plan plane planet plaster plate player plaza plot plumber pocket poem poet point policy polish
    polymer pool port portion portrait position post potato potion powder power praise prayer prefix premium price
    priest prince printer prison prize process product profile profit project promise proof prophet protein province
    puddle pulse pump puppet puzzle pyramid quarrel quarry quest queue quiz quota quote radar radio radius rail
    rainbow ranch range rank rate ratio razor reader realm rebel receipt recipe record refuge region relic remedy
    rental report reptile request rescue reserve resident restaurant result retry reunion revenue reward rhythm rice
    riddle ritual rival road robot rocket role roof room root route row rubber rule rumor sailor salad sale salt
    sample sauce scale scandal scarf scene schedule scholar science scissors scooter score scout screen script
    sculptor season seat second secret section segment senator sensor sentence sequence server service session
    shampoo shape share sheet shelf shield shift shirt shop shovel side signal siren size sketch ski skull slice
    slogan slot smoke soap society socket soil soldier sonnet soup source space spark species speed spell spider
    spine spirit sponge sponsor spoon stack stadium staff stage stair stamp state station statue status steam stem
    step stereo stick stock stomach stone store strategy straw stream street strike string student studio style
    subject suffix summit surface surgeon surprise survey suspect swamp sweater switch sword symbol syrup system
    table tag tailor talent target task tavern tax teacher team telescope template temple tenant term terminal
    territory texture theater theme theory therapy thief thread throne thumb ticket tiger tile timber tissue title
    toast tobacco token tongue tool topic tornado tortoise total tour tourist tower track tractor trade tradition
    traffic tragedy trail train trainer transfer treasure treaty tree trend triangle tribe trip trophy truck tunnel
    turbine tutor twist type umbrella uncle unit universe update user value valve vanilla vapor vault vector vehicle
    vendor verdict verse version vessel veteran victim victory video view village villain vine virtue virus vision
    visit vitamin voice volcano volume vote voyage wage wagon waiter wall wallet warrior watch wave wealth weapon
    weather wedding week weight whale wheat wheel whisper whistle widow width wilderness window winner winter wire
    wisdom witness wizard wolf wool word worker workshop wreath wrist yacht yard year yeast yogurt zebra zipper zone
    """.split()
)
"""Nouns of the training mix."""

NATURAL_NOUNS: tuple[str, ...] = tuple(
    """
    acorn almond anvil apron barley basil basket beacon blossom boulder bouquet brook butter canoe canyon captain carrot
    castle cedar cellar chimney cider cinnamon clover cobalt compass copper coral cottage cradle crystal dolphin dough
    falcon feather fiddle flute forest fountain garlic garnet ginger glacier goblet grape harbor harvest hazel hedge
    heron honey island ivory jasmine jungle kettle kitten lagoon lantern lemon lily linen lobster maple marble meadow
    melody mint mirror moss nectar oasis olive orchard orchid otter oven oyster pebble pepper pillow plum pond poppy
    prairie pumpkin quartz quilt rabbit raisin raven ribbon river rose saddle saffron sail salmon shepherd spruce
    sparrow spice thistle thunder tulip turtle valley velvet violet waffle walnut willow
    """.split()
)
"""Nouns of the natural families; none occurs in the training mix."""

VERBS: dict[str, tuple[str, ...]] = {
    "count": ("count", "tally", "number", "measure"),
    "sum": ("sum", "add", "accumulate", "collect"),
    "best": ("find", "pick", "choose", "get"),
    "filter": ("select", "filter", "keep", "extract"),
    "map": ("make", "build", "convert", "compute"),
    "order": ("arrange", "order", "rank", "list"),
    "text": ("format", "render", "write", "clean"),
    "label": ("label", "classify", "describe", "name"),
    "math": ("compute", "calc", "get", "derive"),
    "test": ("has", "check", "can", "test"),
}
"""Verbs of the training mix by what a function does."""

NATURAL_VERBS: dict[str, tuple[str, ...]] = {
    "count": ("enumerated", "census"),
    "sum": ("gathered", "pooled"),
    "best": ("elected", "favored"),
    "filter": ("sifted", "screened"),
    "map": ("shaped", "crafted"),
    "order": ("aligned", "queued"),
    "text": ("styled", "polished"),
    "label": ("graded", "titled"),
    "math": ("reckoned", "weighed"),
    "test": ("admits", "permits"),
}
"""Participles of the natural families; none occurs in the training mix."""

VALUE_WORDS: tuple[str, ...] = tuple(
    "ant axe bee box cat cup dot elf fig fox gem hat ice ink ivy jam key log map net oak oil owl pen pie rat sea "
    "tea toe urn van wax yak zoo bark cave deer foam gate hook kite lamp mail nest pear ring tent".split()
)
"""Words inside the example values."""

MIX_TREES: tuple[str, ...] = tuple(
    """
    able active amber apex arc archive ash atlas basic beta bold bright bronze build calm cargo center civic
    clean clear clone coast common copy cosmic cover crisp current deep delta direct dual early echo edge elder ember
    engine epoch extra first flat fleet focus fresh front full gamma giant grand gray green heavy high hollow
    home host indigo inner iron jade junior keen kept known large late latest lead legacy level light lime
    live local long lucid macro magenta major master mega metro micro mild mini minor mono native neat
    new next noble nova novel old open orange other outer past patch pearl pilot pine pink plain polar port prime
    prior proto pure purple quick quiet rapid rare raw ready remote replica rough round royal safe second senior
    shadow sharp short side simple single small smart solid spare stable standby steel still strong super swift tall
    teal temp third tidy tiny top true twin ultra under unique urban usual vast vital vivid wide wild wise yellow young
    """.split()
)
"""Tree names of the two-copy repositories in the training mix."""

MIX_GLUE: tuple[str, ...] = tuple(
    """
    about above across after again against all along among and any around at before behind below beside between beyond
    but down during each every for if in inside into least less more most near not of off on once only or out outside
    over per since some than the then through to toward under until up upon via when where while with within without
    """.split()
)
"""Words between the nouns of a name, in the training mix."""

_SHORT: tuple[str, ...] = tuple(
    """
    from by as for in is if or and not def del try else with pass while return import class range max min sum len
    abs join split strip upper lower sorted items append get python unittest tail git grep read bash edit write done
    issue notes lines path error loop file first last returned value call false true none should wrong
    """.split()
)
"""Words of the language and of the tools' messages, as parts of invented words: each of their tokens gets copied."""

MARKS = ("harvester", "lighthouse")
"""Folders that tell the marked two-copy families apart; their words occur nowhere in the training mix."""

RESERVED = frozenset(word for pair in (*PAIRS, MARKS) for word in pair)
"""Words of the evaluated two-copy families."""

_OTHER_MODULES = frozenset(
    """
    asynchat asyncore distutils imp smtpd aifc audioop cgi cgitb chunk crypt imghdr mailcap msilib nis nntplib
    ossaudiodev pipes sndhdr spwd sunau telnetlib uu xdrlib compression annotationlib
    """.split()
)
"""Standard modules of some Python versions only; taken on all, so that draws are the same on all."""

_LANGUAGE = (
    frozenset(keyword.kwlist)
    | {"match", "case", "type", "self", "_"}
    | frozenset(name for name in dir(builtins) if name.islower())
)

_TAKEN = (
    RESERVED
    | _LANGUAGE
    | frozenset(sys.stdlib_module_names)
    | _OTHER_MODULES
    | {"test", "tests", "src", "lib", "self", "hidden_checks"}
)

_NATURAL = frozenset(NATURAL_NOUNS) | frozenset(word for verbs in NATURAL_VERBS.values() for word in verbs)

_ONSETS = tuple("b br c ch cl d dr f fl g gr h j k kl l m n p pl pr qu r s sh sk st t th tr v w z".split())
_VOWELS = tuple("a e i o u ai ea io oo".split())
_CODAS = ("", "", "", "l", "m", "n", "r", "s", "t", "x", "rd", "nt", "sk")


def taken(word: str) -> bool:
    """Return whether a word is Python's, the test suite's or an evaluated tree's."""
    return word in _TAKEN


def shadows(word: str) -> bool:
    """Return whether a variable of this name would hide a part of the language."""
    return word in _LANGUAGE


def foreign(word: str) -> bool:
    """Return whether a word must not occur in the training mix."""
    return word in RESERVED or word in _NATURAL


def syllables(rng: Random) -> str:
    """Return a pronounceable word of one to three syllables."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
    )


def letters(rng: Random) -> str:
    """Return a word of random letters."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 7)))


def spliced(rng: Random) -> str:
    """Return the beginning of one noun with the end of another: it reads like a known word, and is none."""
    a, b = rng.choice(MIX_NOUNS), rng.choice(MIX_NOUNS)
    return a[: rng.randint(1, len(a) - 1)] + b[-rng.randint(1, min(5, len(b) - 1)) :]


def compound(rng: Random) -> str:
    """Return a short word of the language (`from`, `return`, `with`) with a part of a noun before or after it."""
    part = rng.choice(MIX_NOUNS)
    part = part[: rng.randint(2, 4)] if rng.random() < 0.5 else part[-rng.randint(2, 4) :]
    short = rng.choice(_SHORT)
    return short + part if rng.random() < 0.5 else part + short


def misspelt(rng: Random) -> str:
    """Return a noun with a letter replaced, dropped or doubled."""
    word = rng.choice(MIX_NOUNS)
    at = rng.randrange(len(word))
    return word[:at] + rng.choice((rng.choice("abcdefghijklmnopqrstuvwxyz"), "", word[at] * 2)) + word[at + 1 :]


_MAKERS: tuple[Callable[[Random], str], ...] = (*2 * (syllables,), letters, *3 * (spliced,), compound, misspelt)


def invented(rng: Random) -> str:
    """Return a word that is in no list.

    Words of many shapes make a small model copy what it reads; with few shapes it learns the words instead, and
    puts a known one where an unknown one stands.
    """
    while True:
        word = rng.choice(_MAKERS)(rng)
        near = {word, f"{word}s", word.removesuffix("s")}  # code puts words in the plural, and back
        if 2 < len(word) < 11 and not near & _TAKEN and not near & _NATURAL:
            return word
