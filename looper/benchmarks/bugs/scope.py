"""A function while it is being drawn: parameters, typed names, lines, and the atoms of expressions."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from looper.benchmarks.bugs.family import Family
from looper.benchmarks.bugs.words import VALUE_WORDS, shadows

TYPES = {
    "int": "int",
    "ints": "list[int]",
    "str": "str",
    "words": "list[str]",
    "table": "dict[str, int]",
    "bool": "bool",
}
"""Type names of the grammar and their annotations."""

ZERO = {"int": ("0", "-1"), "ints": ("[]",), "str": ('""',), "words": ("[]",), "table": ("{}",), "bool": ("False",)}
"""What a guard returns, by type."""


@dataclass(frozen=True, kw_only=True)
class Param:
    """A parameter: its type and the domain that example values come from."""

    name: str
    type: str
    domain: str


@dataclass(frozen=True, kw_only=True)
class Function:
    """A drawn function."""

    name: str
    tag: str
    """What it does: a key of the verb table."""
    params: tuple[Param, ...]
    lines: tuple[str, ...]
    returns: str
    types: dict[str, str]
    """Type of every parameter and local."""
    frozen: frozenset[int] = frozenset()
    """Indexes of lines that no mutation may touch (they guarantee that loops end)."""

    @property
    def source(self) -> str:
        """The function's text."""
        return "\n".join(self.lines) + "\n"


@dataclass(kw_only=True)
class Scope:
    """The mutable state of a function under construction."""

    rng: Random
    family: Family
    params: list[Param] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    frozen: set[int] = field(default_factory=set)
    preferred: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.preferred.update(self.family.locals)

    def chance(self, share: float) -> bool:
        """Return True in a share of cases."""
        return self.rng.random() < share

    def emit(self, text: str, depth: int = 1, *, frozen: bool = False) -> None:
        """Add a body line."""
        if frozen:
            self.frozen.add(len(self.lines))
        self.lines.append("    " * depth + text)

    def _claim(self, name: str, kind: str) -> str:
        base, n = name, 2
        while name in self.types or shadows(name):
            name = f"{base}{n}"
            n += 1
        self.types[name] = kind
        return name

    def local(self, role: str, kind: str) -> str:
        """Declare a local variable for a role ('sum', 'list', 'item', ...)."""
        name = self.preferred.get(role, role)
        if name in self.types or self.chance(0.25):
            name = self.rng.choice(self.family.pool)
        return self._claim(name, kind)

    def param(self, kind: str, domain: str, role: str = "noun") -> str:
        """Declare a parameter of a type and value domain."""
        if role in self.preferred and not self.chance(0.35):
            name = self.preferred[role]
        else:
            name = self.rng.choice(self.family.pool)
            if kind in ("ints", "words"):
                while name.endswith(("s", "x", "y", "h")):
                    name = self.rng.choice(self.family.pool)
                name += "s"
        if name in self.types:
            name = self.rng.choice(self.family.pool)
        name = self._claim(name, kind)
        self.params.append(Param(name=name, type=kind, domain=domain))
        return name

    def item_of(self, var: str, role: str, kind: str) -> str:
        """Declare a loop variable over `var`: its singular if it has one."""
        singular = var[:-1]
        if var.endswith("s") and len(singular) > 2 and not shadows(singular) and self.chance(0.5):
            return self._claim(singular, kind)
        return self.local(role, kind)

    # ---- atoms

    def threshold(self, low: int = 2, high: int = 6) -> str:
        """Return a number to compare or compute with: a constant, a known or a new int parameter."""
        ints = [p.name for p in self.params if p.type == "int" and p.domain == "small"]
        if len(self.params) < 4 and self.chance(self.family.params):
            if ints and (len(self.params) > 2 or self.chance(0.4)):
                return self.rng.choice(ints)
            return self.param("int", "small", "limit")
        return str(self.rng.randint(low, high))

    def mark(self) -> str:
        """Return a one-letter string: a literal or a parameter."""
        if len(self.params) < 3 and self.chance(self.family.params):
            return self.param("str", "mark", "char")
        return self.text(self.rng.choice("aeiotr"))

    def text(self, value: str) -> str:
        """Return a string literal in the family's quotes."""
        return f"{self.family.quote}{value}{self.family.quote}"

    def bump(self, target: str, op: str, expr: str, depth: int) -> None:
        """Emit `target op= expr` in the family's style."""
        if self.family.augmented or op == "*":
            self.emit(f"{target} {op}= {expr}", depth)
        else:
            self.emit(f"{target} = {target} {op} {expr}", depth)

    def int_expr(self, x: str) -> str:
        """Return a small expression over the int `x`."""
        pick = self.rng.random()
        if pick < 0.2:
            return f"{x} + {self.threshold(1, 5)}"
        if pick < 0.38:
            return f"{x} - {self.threshold(1, 4)}"
        if pick < 0.52:
            return f"{x} * {self.threshold(2, 4)}"
        if pick < 0.6:
            return f"{x} // {self.rng.randint(2, 4)}"
        if pick < 0.68:
            return f"{x} % {self.rng.randint(2, 5)}"
        if pick < 0.78:
            return f"abs({x} - {self.threshold()})"
        if pick < 0.9:
            return f"{self.rng.choice(('min', 'max'))}({x}, {self.threshold()})"
        if pick < 0.95:
            return f"{x} * {self.rng.randint(2, 3)} + {self.rng.randint(1, 4)}"
        return f"{self.threshold(6, 9)} - {x}"

    def int_test(self, x: str) -> str:
        """Return a condition over the int `x`."""
        pick = self.rng.random()
        if self.family.natural and pick < 0.3:
            start, left, after = self.rng.randint(1, 3), *self.rng.choices(("<", "<="), k=2)
            return f"{start} {left} {x} {after} {start + self.rng.randint(2, 5)}"
        if pick < 0.55:
            return f"{x} {self.rng.choice(('<', '<=', '>', '>='))} {self.threshold()}"
        if pick < 0.65:
            return f"{x} % {self.rng.randint(2, 3)} == {self.rng.randint(0, 1)}"
        if pick < 0.73:
            return f"{x} {self.rng.choice(('==', '!='))} {self.threshold()}"
        if pick < 0.8:
            return f"abs({x} - {self.threshold()}) {self.rng.choice(('<', '<=', '>'))} {self.rng.randint(1, 3)}"
        low, high = self.threshold(1, 3), self.threshold(5, 8)
        if pick < 0.92:
            return f"{x} {self.rng.choice(('>', '>='))} {low} and {x} {self.rng.choice(('<', '<='))} {high}"
        return f"{x} {self.rng.choice(('<', '<='))} {low} or {x} {self.rng.choice(('>', '>='))} {high}"

    def word_test(self, w: str) -> str:
        """Return a condition over the word `w`."""
        pick = self.rng.random()
        if pick < 0.45:
            size = self.rng.choice(("3", "3", "4", self.threshold(3, 4)))
            return f"len({w}) {self.rng.choice(('<', '<=', '>', '>='))} {size}"
        if pick < 0.6:
            return f"{self.mark()} in {w}"
        if pick < 0.75:
            return f"{w}.{self.rng.choice(('startswith', 'endswith'))}({self.mark()})"
        if pick < 0.85:
            return f"{w}[{self.rng.choice(('0', '-1'))}] {self.rng.choice(('==', '!='))} {self.mark()}"
        return f"len({w}) {self.rng.choice(('>', '>='))} 3 and {self.mark()} in {w}"

    def word_expr(self, w: str) -> str:
        """Return a word made of the word `w`."""
        k = self.rng.randint(1, 3)
        return self.rng.choice(
            (
                f"{w}.upper()",
                f"{w}[:{k}]",
                f"{w}[{k}:]",
                f"{w}[::-1]",
                f"{w} + {self.text('s')}",
                f"{w}[0]",
                f"{w}.strip()",
            )
        )


def sample(rng: Random, domain: str) -> object:
    """Return an example value of a domain."""
    r = rng.random
    if domain == "small":
        return int(r() * 7)
    if domain == "number":
        return int(r() * 13)
    if domain == "digits":
        return int(r() * (1000 if r() < 0.5 else 60))
    if domain == "ints":
        low = -4 if r() < 0.15 else 0
        return [low + int(r() * 9) for _ in range(1 + int(r() * 4.5))]
    if domain == "mark":
        return rng.choice("aeiotr")
    if domain == "word":
        return rng.choice(VALUE_WORDS)
    words = [rng.choice(VALUE_WORDS) for _ in range(1 + int(r() * 3.5))]
    if domain == "words":
        if r() < 0.3:
            words.append(words[0])
        return words
    if domain == "table":
        return {word: int(r() * 8) for word in words}
    if domain == "csv":
        return (", " if r() < 0.5 else ",").join(words)
    if domain == "numtext":
        return " ".join(str(int(r() * 9)) for _ in words)
    text = " ".join(word.capitalize() if r() < 0.3 else word for word in words[:2])
    if domain == "padded":
        return " " * int(r() * 2.5) + text + " " * int(r() * 2)
    return text
