"""Questions whose answers are reasoned before they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from looper.learning.data.facts import Facts
from looper.learning.data.pairs import Kind, Pair
from looper.learning.data.rules import answers
from looper.learning.data.synthesis import Synthesised


@dataclass(frozen=True, kw_only=True)
class ChainOfThought(Synthesised):
    """A question, and an answer after a thought in the tags that agents think in."""

    @property
    def name(self) -> str:
        """Name of the format."""
        return "chain_of_thought"

    @property
    def fields(self) -> Mapping[str, str]:
        """Parts of a pair."""
        return {"question": "question", "reasoning": "reason", "answer": "answer"}

    def draft(self, facts: Facts, kind: Kind, solved: Sequence[Facts]) -> list[Pair]:
        """Return the rules' pairs of one kind."""
        return answers(facts, kind)

    def say(self, pair: Pair, facts: Facts) -> tuple[str, str]:
        """Return the question, and the thought with the answer after it."""
        return pair.question, f"<think>{pair.reason}</think>\n{pair.answer}"
