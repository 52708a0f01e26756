"""`retrieval=none`: the agent remembers nothing."""

from __future__ import annotations

from dataclasses import dataclass

from looper.records import Episode, Query, Recall


@dataclass(frozen=True, kw_only=True)
class NoMemory:
    """Recalls nothing and records nothing."""

    def recall(self, query: Query) -> Recall:
        """Return no notes."""
        return Recall()

    def record(self, episode: Episode) -> None:
        """Let the episode go."""
