"""Words of the generator: pools for names and values, reserved words, and invented words."""

from __future__ import annotations

import builtins
import keyword
import sys
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
    account action address agent amount anchor angle area array asset badge band bank base batch bench bill bird block
    board body bonus book border bound box branch bridge brick bucket buffer bundle button byte cable cache call card
    cargo case cell chain chair change channel chapter chart check circle city claim class client clock code coin color
    column comment context corner cost count counter course cover crate credit cursor curve customer cycle data deal
    degree delay depth desk detail device digit disk distance domain door draft drive edge element engine entry error
    event factor feature fee field figure file filter flag floor flow folder font form frame fraction function gap gate
    grade graph grid group guest guide handle head header height hook hotel hour house icon image index input interval
    item job join journey jump kernel label lane layer leaf ledger length lesson letter level library limit line link
    list load loan lock log loop machine mail map margin mark market mask matrix member memory menu message meter method
    metric minute mode model module moment month motor name neighbor node note number object offer office offset option
    order origin owner packet page pair panel paper parcel parent part party path pattern payment peak period person
    phase phone picture piece pixel place plan plane player point policy pool port position post power prefix price
    process product profile project queue quota quote radius range rank rate ratio reader record region report request
    reserve result retry reward road role room root route row rule sale sample scale scene schedule score screen season
    seat second section segment sensor sequence server service session shape share sheet shelf shift shop side signal
    size slice slot socket source space speed stack staff stage stamp state station status step stock store stream
    street string student style subject suffix surface switch symbol system table tag target task tax team template
    term ticket tile title token tool topic total tour tower track trade train transfer tree trip truck type unit update
    user value vector vendor version video view visit volume vote wage wall wave week weight wheel width window wire
    word worker year zone
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

RESERVED = frozenset(word for pair in PAIRS for word in pair)
"""Words of the evaluated pairs."""

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
    """Return an invented pronounceable word."""
    while True:
        count = 1 if rng.random() < 0.25 else 2
        word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count))
        if len(word) > 2 and word not in _TAKEN and word not in _NATURAL:
            return word


def letters(rng: Random) -> str:
    """Return a word of random letters."""
    while True:
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 6)))
        if word not in _TAKEN and word not in _NATURAL:
            return word
