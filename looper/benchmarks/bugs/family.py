"""Families: conventions that the repositories of one kind share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from looper.benchmarks.bugs import words
from looper.errors import ConfigError

MIX_LAYOUTS = ("flat", "src", "lib_sub", "root", "nested", "folder", "deep", "rooted", "rooted_sub", "rooted_deep")
STREAM = ("first", "second")
"""Kinds of the marked families of a stream."""

NATURAL_LAYOUTS = ("python_dir", "component", "domain")
MIX_NAMING = (
    "verb_noun",
    "noun_verb",
    "verb_noun_noun",
    "prefix",
    "short",
    "camel",
    "noun_noun_verb",
    "glued",
    "verb_glued",
    "glued_verb",
)
NATURAL_NAMING = ("noun_from_noun", "verb_by_noun", "as_noun_verb")
DIALECTS = ("terse", "question", "expected", "story", "report", "mixed")


class Live(StrEnum):
    """Which of two trees is live."""

    FIRST = "first"
    SECOND = "second"
    COIN = "coin"
    """Drawn per task."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Conventions shared by all repositories of a family."""

    name: str
    """Identity; together with an index it decides a draw."""
    kind: str
    """Group that results are reported for: mix, seen, fresh, natural, conventions, unlearnable."""
    layout: str = "flat"
    """Where modules lie: one of MIX_LAYOUTS or NATURAL_LAYOUTS."""
    naming: str = "verb_noun"
    """How functions are named: one of MIX_NAMING or NATURAL_NAMING."""
    pool: tuple[str, ...] = words.MIX_NOUNS
    """Nouns that names are made of."""
    invented: float = 0.5
    """Share of invented words in names."""
    prefix: str = ""
    """First part of every function's name in the `prefix` style."""
    glue: str = "of"
    """Word between the nouns of a name in the glued styles."""
    loops: float = 0.5
    """Share of explicit loops where a comprehension would do."""
    augmented: bool = True
    """`total += x` (True) or `total = total + x`."""
    hints: bool = False
    """Whether signatures carry type hints."""
    docstrings: bool = False
    """Whether functions carry a docstring."""
    guards: float = 0.3
    """Share of functions that begin with a guard clause."""
    fstrings: bool = True
    """f-strings (True) or concatenation."""
    params: float = 0.5
    """Share of thresholds that are parameters, not constants."""
    templates: float = 0.25
    """Share of functions written from templates, not drawn from the grammar."""
    locals: tuple[tuple[str, str], ...] = ()
    """Preferred local name by role."""
    quote: str = '"'
    """Quotation mark of string literals."""
    imports: str = "from"
    """Import style of the tests: from, module or alias."""
    tests: str = "method"
    """Test style: method (one a function), single (one class a repository) or table."""
    dialect: str = "mixed"
    """Register of the issues: one of DIALECTS."""
    natural: bool = False
    """Whether the idioms that never occur in the training mix are used."""
    trees: tuple[str, str] | None = None
    """Names of the two trees of a two-copy family; None for ordinary repositories."""
    two_copy: bool = False
    """Whether every module exists under two trees."""
    live: Live = Live.COIN
    """Which tree of a two-copy family is live in world A; the other one is in world B."""
    mark: str = ""
    """Folder that holds the trees of a marked two-copy family, in every task; empty draws one for each."""
    stem: str = ""
    """Seed text and source name shared by families whose repositories are the same; empty means `name`."""


_LOCALS: dict[str, tuple[str, ...]] = {
    "sum": ("total", "acc", "result", "amount", "res", "subtotal", "tot"),
    "count": ("count", "hits", "seen", "cnt", "found", "num"),
    "list": ("out", "result", "kept", "items", "acc", "output", "res", "picked"),
    "best": ("best", "top", "winner", "current", "chosen", "peak"),
    "text": ("text", "out", "result", "buf", "line", "res"),
    "dict": ("table", "counts", "groups", "found", "index", "bag"),
    "value": ("value", "base", "score", "level", "step", "val", "number", "result"),
    "item": ("item", "value", "x", "entry", "elem", "v", "cur"),
    "char": ("ch", "char", "c", "letter", "symbol"),
    "word": ("word", "part", "name", "w", "token", "piece"),
    "index": ("i", "pos", "idx", "k", "j"),
    "limit": ("limit", "bound", "size", "cut", "n", "k", "low", "step", "extra", "gap", "cap", "offset"),
}


def _conventions(rng: Random) -> dict[str, object]:
    locals_ = tuple((role, rng.choice(names)) for role, names in _LOCALS.items())
    return {
        "loops": rng.choice((0.3, 0.6, 0.9)),
        "augmented": rng.random() < 0.75,
        "hints": rng.random() < 0.25,
        "docstrings": rng.random() < 0.25,
        "guards": rng.choice((0.1, 0.3, 0.6)),
        "fstrings": rng.random() < 0.6,
        "params": rng.choice((0.3, 0.5, 0.8)),
        "locals": locals_,
        "quote": "'" if rng.random() < 0.3 else '"',
        "imports": rng.choice(("from", "module", "alias")),
        "tests": rng.choice(("method", "single", "table")),
        "dialect": rng.choice(DIALECTS),
    }


def _make(name: str, kind: str, rng: Random, **fixed: object) -> Family:
    prefix = words.invented(rng)[:3]
    while words.foreign(prefix) or words.taken(prefix):
        prefix = words.invented(rng)[:3]
    drawn: dict[str, object] = {"name": name, "kind": kind, "prefix": prefix, "glue": rng.choice(words.MIX_GLUE)}
    drawn.update(_conventions(rng))
    drawn["layout"] = rng.choice(MIX_LAYOUTS)
    drawn["naming"] = rng.choice(MIX_NAMING)
    drawn["invented"] = rng.choice((0.3, 0.5, 0.7))
    drawn["pool"] = (*rng.sample(words.MIX_NOUNS, 80), *(words.invented(rng) for _ in range(60)))
    drawn.update(fixed)
    return Family(**drawn)  # type: ignore[arg-type]


def _check(k: int) -> None:
    if k < 0:
        raise ConfigError(f"family number {k} is negative; use 0 or more")


def mix_family(k: int, kind: str = "mix") -> Family:
    """Return the k-th family of the training mix (k >= 0, unbounded)."""
    _check(k)
    return _make(f"mix{k}", kind, Random(f"bugs:mix:{k}"))


def natural_family(k: int) -> Family:
    """Return the k-th natural family: layout, naming, idioms and vocabulary never occur in the training mix."""
    _check(k)
    rng = Random(f"bugs:natural:{k}")
    return _make(
        f"natural{k}",
        "natural",
        rng,
        layout=NATURAL_LAYOUTS[k % len(NATURAL_LAYOUTS)],
        naming=NATURAL_NAMING[k // 3 % len(NATURAL_NAMING)],
        pool=words.NATURAL_NOUNS,
        invented=0.0,
        natural=True,
        templates=0.0,
    )


def two_copy_mix_family(k: int) -> Family:
    """Return the k-th two-copy family of the training mix; trees are drawn per task from a large pool."""
    _check(k)
    return _make(f"twin{k}", "mix", Random(f"bugs:twin:{k}"), layout="trees", two_copy=True)


def _paired(pair: tuple[str, str], kind: str, live: Live, mark: str = "") -> Family:
    if pair not in words.PAIRS:
        known = ", ".join("/".join(p) for p in words.PAIRS)
        raise ConfigError(f"unknown tree pair {'/'.join(pair)!r}; choose one of {known}")
    stem = "-".join(["pair", *pair, *([mark] if mark else [])])
    rng = Random(f"bugs:{stem}")
    return _make(
        f"{kind}-{stem}", kind, rng, layout="trees", two_copy=True, trees=pair, live=live, mark=mark, stem=stem
    )


def conventions_family(pair: tuple[str, str]) -> Family:
    """Return the two-copy family in which one tree of `pair` is live in every task of a world."""
    return _paired(pair, "conventions", Live.FIRST)


def unlearnable_family(pair: tuple[str, str]) -> Family:
    """Return the two-copy family whose live tree is drawn per task; else equal to `conventions_family`."""
    return _paired(pair, "unlearnable", Live.COIN)


def stream_family(pair: tuple[str, str], part: int, *, learnable: bool = True) -> Family:
    """Return one of two marked families with opposite conventions; without `learnable`, the placebo's half of it.

    The same two trees lie below a folder that tells the families apart, and what is live in one is not in the other:
    learning the second by its tree names alone unlearns the first, while the folder lets a model hold both.
    """
    live = (Live.FIRST, Live.SECOND)[part] if learnable else Live.COIN
    return _paired(pair, STREAM[part], live, words.MARKS[part])
