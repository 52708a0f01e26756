"""`retrieval=none`: the agent remembers nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from looper.records import Episode, Query, Recall


@dataclass(frozen=True, kw_only=True)
class NoMemory:
    """Recalls nothing and records nothing."""

    @property
    def remembers(self) -> bool:
        """Nothing is kept."""
        return False

    def open(self, folder: Path) -> NoMemory:
        """Return itself for every arm and world."""
        return self

    def recall(self, query: Query) -> Recall:
        """Return no notes."""
        return Recall()

    def record(self, episode: Episode) -> None:
        """Let the episode go."""
