"""One question and its answer about a session, and the limits that every pair must keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


class Kind(StrEnum):
    """What a pair teaches."""

    TOOL_USAGE = "tool_usage"
    ERROR_RECOVERY = "error_recovery"
    CONVENTION = "convention"
    WORKFLOW = "workflow"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question, its answer, and what stands between them in some formats."""

    kind: Kind
    question: str
    answer: str
    reason: str = ""
    """Why the answer is right; in reflections, what went wrong."""
    context: str = ""
    """What was known when the question arose."""
    key: str = ""
    """Text that the answer must hold word for word, in whatever words it is put: a path, a call."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Longest parts of a pair, in characters."""

    question: int
    answer: int

    def flaw(self, pair: Pair, needed: Sequence[str]) -> str:
        """Return what is wrong with a pair, '' if nothing is; `needed` are the parts that must not be empty."""
        for name in needed:
            if not str(getattr(pair, name)).strip():
                return f"its {name} is empty"
        if len(pair.question) + len(pair.context) > self.question:
            return f"its question has more than {self.question} characters"
        if len(pair.answer) + len(pair.reason) > self.answer:
            return f"its answer has more than {self.answer} characters"
        if pair.answer.strip() == pair.question.strip():
            return "its answer is its question"
        return f"its answer lacks {pair.key[:60]!r}" if pair.key not in pair.answer else ""


def in_turn(groups: Sequence[Sequence[T]]) -> list[T]:
    """Return the first of every group, then the second of every group, and so on."""
    missing = object()
    return [item for row in zip_longest(*groups, fillvalue=missing) for item in row if item is not missing]  # type: ignore[misc]


def shares(total: int, count: int) -> list[int]:
    """Divide a total into `count` whole parts that differ by one at most, larger ones first."""
    return [total // count + (i < total % count) for i in range(count)]
