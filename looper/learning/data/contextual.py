"""Questions that carry the context of the task that they arose in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from looper.errors import ConfigError
from looper.learning.data.facts import Facts
from looper.learning.data.pairs import Kind, Pair
from looper.learning.data.rules import answers
from looper.learning.data.synthesis import Synthesised
from looper.learning.data.writing import shortened


@dataclass(frozen=True, kw_only=True)
class Contextual(Synthesised):
    """A question after the repository, the issue and what the session had seen, and its answer."""

    context_chars: int = 1500
    """Most of the issue, and most of what was seen, that a question carries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context_chars < 1:
            raise ConfigError(f"data.context_chars={self.context_chars} must be at least 1")

    @property
    def name(self) -> str:
        """Name of the format."""
        return "contextual"

    @property
    def fields(self) -> Mapping[str, str]:
        """Parts of a pair."""
        return {"context": "context", "question": "question", "answer": "answer"}

    def draft(self, facts: Facts, kind: Kind, solved: Sequence[Facts]) -> list[Pair]:
        """Return the rules' pairs of one kind, with what the agent had seen as context (else what it was told)."""
        out = []
        for pair in answers(facts, kind):
            seen = shortened(pair.context.strip() or "nothing yet", self.context_chars)
            asked = pair.question.replace(f"\n{facts.summary}", "")  # the issue stands before the question
            out.append(replace(pair, question=asked, context=seen))
        return out

    def say(self, pair: Pair, facts: Facts) -> tuple[str, str]:
        """Return the question after its context, and the answer."""
        issue = shortened(facts.issue, self.context_chars)
        context = f"Repository: {facts.repository}\nIssue: {issue}\nSeen: {pair.context}"
        return f"{context}\n\n{pair.question}", pair.answer
