"""Plain questions and answers about the agent's own sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from looper.learning.data.facts import Facts
from looper.learning.data.pairs import Kind, Pair
from looper.learning.data.rules import answers
from looper.learning.data.synthesis import Synthesised


@dataclass(frozen=True, kw_only=True)
class QuestionsAnswers(Synthesised):
    """A question about what a session showed, and its answer."""

    @property
    def name(self) -> str:
        """Name of the format."""
        return "qa"

    @property
    def fields(self) -> Mapping[str, str]:
        """Parts of a pair."""
        return {"question": "question", "answer": "answer"}

    def draft(self, facts: Facts, kind: Kind, solved: Sequence[Facts]) -> list[Pair]:
        """Return the rules' pairs of one kind."""
        return answers(facts, kind)

    def say(self, pair: Pair, facts: Facts) -> tuple[str, str]:
        """Return question and answer."""
        return pair.question, pair.answer
