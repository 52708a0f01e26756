"""Past sessions as notes: one way of recording for all options of `retrieval`, which differ in how they rank."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.memory import events, sessions
from looper.memory.sessions import Session
from looper.memory.store import MemoryStore
from looper.records import Episode, Note, Query, Recall, digest_of

FILE = "sessions.db"
"""Name of the store in a memory's folder."""


@dataclass(frozen=True, kw_only=True)
class SessionKnowledge(ABC):
    """An option that remembers sessions, resolved and failed ones, and recalls a line about each of the best few."""

    limit: int = 3
    """Most notes that a prompt shows; sessions whose notes read the same share one."""
    resolved_only: bool = True
    """Leave failed sessions out: one among the notes undoes them for the bundled model (experiments/ablation)."""
    start: str = ""
    """Store to begin from, e.g. `outputs/runs/NAME/memory/adapted/sessions.db`; it is copied. '' begins with none."""

    def __post_init__(self) -> None:
        """Refuse to recall nothing: that is another option."""
        if self.limit < 1:
            raise ValueError(f"limit={self.limit} is too small: it must be at least 1; retrieval=none recalls nothing")

    @abstractmethod
    def rank(self, store: MemoryStore, candidates: Sequence[Session], text: str) -> Sequence[Session]:
        """Return candidates that have to do with an issue's text, best first, the earlier recorded first in ties."""

    def candidates(self, known: Sequence[Session], text: str) -> list[Session]:
        """Return the sessions that may be shown for an issue's text."""
        return [session for session in known if session.resolved or not self.resolved_only]

    def index(self, store: MemoryStore) -> None:
        """Prepare what was recorded for ranking; the store's own index needs nothing more."""
        return

    @property
    def remembers(self) -> bool:
        """Sessions are kept."""
        return True

    def decisive(self) -> dict[str, Any]:
        """Return what decides a run: the values, and what the store to begin from holds rather than where it lies."""
        values = dataclasses.asdict(self)
        if self.start:
            with MemoryStore.open(Path(self.start), read_only=True) as store:
                values["start"] = events.head(store.connection).hash
        return values

    def open(self, folder: Path) -> SessionMemory:
        """Open a memory that holds what `start` holds, whatever an interrupted run left in the folder.

        A run that goes on records its finished sessions again, and what comes before them must not see them.
        Raises StoreError if there is no such store.
        """
        path = folder / FILE
        for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
            (folder / name).unlink(missing_ok=True)
        if self.start:
            with MemoryStore.open(Path(self.start), read_only=True) as start:
                start.copy_to(path)
        with MemoryStore.open(path) as store:
            self.index(store)
        return SessionMemory(path=path, option=self)


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionMemory:
    """The sessions of one arm in one world. The file is open during a call only."""

    path: Path
    option: SessionKnowledge

    def record(self, episode: Episode) -> None:
        """Add a finished train episode; one that the machine failed says nothing and is left out."""
        if episode.infrastructure:
            return
        with MemoryStore.open(self.path) as store:
            sessions.add(store, episode)
            self.option.index(store)

    def recall(self, query: Query) -> Recall:
        """Return the notes of the best sessions of other tasks; the option's limit counts, not the query's.

        A task is the same if its id or its issue's text is: sessions of its twin in another world are left out too.
        """
        own = digest_of(query.text.strip())
        with MemoryStore.open(self.path) as store:
            others = [s for s in sessions.sessions(store) if s.task != query.task and s.issue != own]
            ranked = self.option.rank(store, self.option.candidates(others, query.text), query.text)
        notes: dict[str, Note] = {}
        for session in ranked:
            if len(notes) == self.option.limit:
                break
            notes.setdefault(session.note, Note(text=session.note, source=session.id))
        return Recall(notes=tuple(notes.values()))
