"""`retrieval=shuffled`: the placebo of knowledge, notes of the same kind and length that say nothing of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from looper.memory.knowledge import SessionKnowledge
from looper.memory.sessions import Session
from looper.memory.store import MemoryStore
from looper.records import digest_of


@dataclass(frozen=True, kw_only=True)
class Shuffled(SessionKnowledge):
    """Draws sessions without regard to the issue, and deals their outcomes anew among them.

    To draw without regard to the issue is not enough: where a convention holds for all tasks, any session's note tells
    it, and a placebo that helps makes knowledge look useless. What a note teaches is which place goes with which
    outcome, so the outcomes (resolved, failed) are permuted over all sessions, and with `resolved_only` those are
    drawn that were dealt `resolved`. Wording, length, names, places and the share of failures stay as in the memory.
    The permutation is drawn for every issue: a single one could by chance tell the truth to a whole run.

    What is left is how often each place was edited: the agent's own habit, which is no news to it while it has not
    learned. Where nearly all sessions ended alike there is little to permute, and the placebo is a weak one.
    """

    def candidates(self, known: Sequence[Session], text: str) -> list[Session]:
        """Return the sessions with outcomes dealt anew, and of those the ones that may be shown."""
        dealt = [session.resolved for session in known]
        Random(f"outcomes/{digest_of(text)}").shuffle(dealt)
        mixed = [s.model_copy(update={"resolved": resolved}) for s, resolved in zip(known, dealt, strict=True)]
        return super().candidates(mixed, text)

    def rank(self, store: MemoryStore, candidates: Sequence[Session], text: str) -> list[Session]:
        """Return the candidates in an order drawn for the issue."""
        return Random(f"order/{digest_of(text)}").sample(list(candidates), len(candidates))
