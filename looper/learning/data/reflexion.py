"""Reflections on what went wrong in a session, and what to do instead (after Shinn et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from looper.learning.data.facts import Facts
from looper.learning.data.pairs import Kind, Pair
from looper.learning.data.rules import reflections
from looper.learning.data.synthesis import Synthesised


@dataclass(frozen=True, kw_only=True)
class Reflexion(Synthesised):
    """A mistake, and an answer that names it and says what to do instead.

    Failed calls are set against the calls that cured them; sessions that failed against a session that resolved the
    same task. A session without a mistake gives no pair.
    """

    only_resolved: bool = False
    """Write only about sessions whose patch the hidden tests accept; false also reflects on failed sessions."""

    @property
    def name(self) -> str:
        """Name of the format."""
        return "reflexion"

    @property
    def fields(self) -> Mapping[str, str]:
        """Parts of a pair."""
        return {"question": "question", "reflection": "reason", "answer": "answer"}

    def draft(self, facts: Facts, kind: Kind, solved: Sequence[Facts]) -> list[Pair]:
        """Return the rules' pairs of one kind."""
        return reflections(facts, kind, solved)

    def say(self, pair: Pair, facts: Facts) -> tuple[str, str]:
        """Return the question, and the reflection with what to do instead."""
        return pair.question, f"What went wrong: {pair.reason}\nInstead: {pair.answer}"
