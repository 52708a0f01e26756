"""Running drawn functions in process: calls, outcomes and the examples that tell two versions apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from looper.benchmarks.bugs.scope import Function, sample

Callee = Callable[..., Any]

ODD = (NameError, TypeError, AttributeError, SyntaxError)
"""Errors that no mutation may cause: they would give the bug away, or are no bug of the logic."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A call by its arguments and what the sound function returns, as Python text."""

    args: str
    expected: str
    actual: str = ""
    """What the mutant gives: a value's text or an exception's name; equal to `expected` where it is right."""

    @property
    def shows(self) -> bool:
        """Whether the case tells the mutant from the sound function."""
        return self.actual != self.expected


LONGEST = 20_000
"""Longest range that a drawn function may walk; a mutant that wants more would seem to hang."""


def short_range(*bounds: int) -> range:
    """Return a range. Raises NameError, which no mutation may cause, for one that is too long to walk."""
    made = range(*bounds)
    if made and abs(made[-1] - made[0]) // abs(made.step) >= LONGEST:
        raise NameError(f"a range of more than {LONGEST} steps")
    return made


def load(source: str, name: str) -> Callee:
    """Compile a function's text and return the function."""
    scope: dict[str, Any] = {"range": short_range}
    exec(compile(source, name, "exec"), scope)
    callee: Callee = scope[name]
    return callee


@dataclass(frozen=True, kw_only=True)
class Raised:
    """Stands for the value of a call that raised."""

    name: str

    def __repr__(self) -> str:
        return self.name


def outcome(callee: Callee, args: tuple[object, ...]) -> object:
    """Return a call's value, or what it raised.

    Raises the errors in ODD.
    """
    try:
        return callee(*args)
    except ODD:
        raise
    except Exception as error:  # any other error is a behaviour that an issue can report
        return Raised(name=type(error).__name__)


def arguments(rng: Random, function: Function) -> tuple[object, ...]:
    """Return example arguments for a function."""
    return tuple(sample(rng, p.domain) for p in function.params)


@dataclass(kw_only=True)
class Probe:
    """A sound function with a set of example calls and their outcomes."""

    function: Function
    calls: list[tuple[object, ...]]
    texts: list[str]
    expected: list[object]

    def compare(self, mutant: Callee) -> list[Case] | None:
        """Return every call with both outcomes; None if the mutant is no acceptable bug."""
        cases: list[Case] = []
        for args, text, expected in zip(self.calls, self.texts, self.expected, strict=True):
            try:
                actual = outcome(mutant, args)
            except ODD:
                return None
            value = repr(expected)
            shown = value if actual == expected else repr(actual)
            if len(shown) > 44:
                return None
            cases.append(Case(args=text, expected=value, actual=shown))
        return cases


def probe(rng: Random, function: Function, *, want: int, tries: int) -> Probe | None:
    """Draw distinct calls on which the function returns compact values; None if there are too few or all are alike."""
    callee = load(function.source, function.name)
    out = Probe(function=function, calls=[], texts=[], expected=[])
    known: set[str] = set()
    for _ in range(tries):
        args = arguments(rng, function)
        text = repr(args)[1:-1].rstrip(",")
        if text in known:
            continue
        known.add(text)
        try:
            value = outcome(callee, args)
        except ODD:
            return None
        if isinstance(value, Raised) or len(repr(value)) > 40 or len(text) > 46:
            continue
        out.calls.append(args)
        out.texts.append(text)
        out.expected.append(value)
        if len(out.calls) == want:
            break
    if len(out.calls) < min(want, 3) or (want > 2 and all(value == out.expected[0] for value in out.expected)):
        return None
    return out
