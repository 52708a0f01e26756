"""`retrieval=fts`: past sessions by full-text search over their issues, patches and names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from looper.memory.knowledge import SessionKnowledge
from looper.memory.rows import Origin
from looper.memory.search.search import search
from looper.memory.search.text import Level
from looper.memory.search.vectors import Vectors
from looper.memory.sessions import ENDED, Session
from looper.memory.store import MemoryStore

DEPTH = 200
"""Passages that are looked through, at least; several belong to one session."""


@dataclass(frozen=True, kw_only=True)
class FullText(SessionKnowledge):
    """Ranks sessions by their best passage: BM25 of the issue's words, fused with the names in code that it holds."""

    def rank(self, store: MemoryStore, candidates: Sequence[Session], text: str) -> list[Session]:
        """Return the candidates that share a word with the text, best first."""
        return ranked(store, candidates, text, max(DEPTH, 20 * self.limit))


def ranked(
    store: MemoryStore, candidates: Sequence[Session], text: str, depth: int, vectors: Vectors | None = None
) -> list[Session]:
    """Return the candidates in the order of their best passage."""
    named = {session.id: session for session in candidates}
    hits = search(
        store.connection,
        text,
        limit=depth,
        origins=[Origin.SESSION],
        papers=list(named),
        vectors=vectors,
        level=Level.EXACT,
    )
    rows = store.connection.execute(
        "SELECT id, paper FROM chunk WHERE locator <> ? AND id IN (SELECT value FROM json_each (?))",
        (ENDED, json.dumps([hit.chunk for hit in hits])),
    )
    papers = dict(rows.fetchall())
    return [named[paper] for paper in dict.fromkeys(papers[hit.chunk] for hit in hits if hit.chunk in papers)]
