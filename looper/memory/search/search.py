"""The search itself: any text in, ranked chunks or methods out, never an error for what the text holds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from looper.memory.rows import Origin, Scope, ancestors
from looper.memory.search.fusion import Hit, fuse
from looper.memory.search.identifiers import names_of, rank_names
from looper.memory.search.postings import TextIndex
from looper.memory.search.text import Level, rank
from looper.memory.search.vectors import Vectors, nearest
from looper.memory.search.words import terms_of, words_of

DEPTH = 30
"""Places of each ranking that are fused, where there is more than one."""

LETTERS = 50_000
"""Of a question, as far as it is read."""

METHOD_WORDS = 256
"""Distinct words of a question about methods that are read."""


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[bool]:
    """Let every SELECT inside see one state of the file; yields whether the caller has a transaction open already."""
    if connection.in_transaction:
        yield True
        return
    connection.execute("BEGIN")
    try:
        yield False
    finally:
        connection.execute("COMMIT")


class Searcher:
    """Searches one connection and keeps what it has read of the index until the index changes.

    One that is kept answers later questions several times faster; the answers are the same. Like its connection it
    belongs to one thread at a time.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._index = TextIndex(connection)

    def search(
        self,
        text: str,
        *,
        limit: int = 10,
        scope: Scope | None = None,
        origins: Iterable[Origin] | None = None,
        papers: Iterable[str] | None = None,
        vectors: Vectors | None = None,
        level: Level = Level.BALANCED,
    ) -> list[Hit]:
        """Return the best chunks for any text, best first.

        `scope` lets through papers of that scope and of those above it, `origins` and `papers` (ids) those that are
        named; None lets all through. Words that no chunk holds are ignored; without any other there are no hits.
        """
        if limit < 1:
            return []
        text = text[:LETTERS]
        with _snapshot(self._connection) as writing:
            self._index.refresh(writing=writing)
            if not self._index.rows:
                return []
            mask = self._mask(scope, origins, papers)
            depth = max(limit, DEPTH) if vectors is not None or names_of(text) else limit
            rankings = {
                "words": rank(self._index, terms_of(self._connection, text, self._index.known), depth, level, mask),
                "identifiers": rank_names(self._connection, text, depth, mask),
            }
            if vectors is not None and text.strip():
                rankings["vectors"] = nearest(self._connection, vectors, text, depth, mask)
        return fuse(rankings, limit)

    def _mask(
        self, scope: Scope | None, origins: Iterable[Origin] | None, papers: Iterable[str] | None
    ) -> NDArray[np.bool_] | None:
        """Return which chunks pass, by id; None for all."""
        filters = {
            "scope": None if scope is None else sorted(ancestors(scope)),
            "origin": None if origins is None else sorted({str(origin) for origin in origins}),
            "id": None if papers is None else sorted(set(papers)),
        }
        wanted = {column: values for column, values in filters.items() if values is not None}
        if not wanted:
            return None
        key = json.dumps(wanted)
        if key not in self._index.masks:
            condition = " AND ".join(f"paper.{column} IN (SELECT value FROM json_each (?))" for column in wanted)
            rows = self._connection.execute(
                f"SELECT chunk.id FROM paper JOIN chunk ON chunk.paper = paper.id WHERE {condition}",
                [json.dumps(values) for values in wanted.values()],
            ).fetchall()
            mask = np.zeros(self._index.highest + 1, np.bool_)
            mask[[row for (row,) in rows]] = True
            self._index.keep_mask(key, mask)
        return self._index.masks[key]


def search(
    connection: sqlite3.Connection,
    text: str,
    *,
    limit: int = 10,
    scope: Scope | None = None,
    origins: Iterable[Origin] | None = None,
    papers: Iterable[str] | None = None,
    vectors: Vectors | None = None,
    level: Level = Level.BALANCED,
) -> list[Hit]:
    """Search once, as `Searcher.search` does; keep a `Searcher` where more questions follow."""
    return Searcher(connection).search(
        text, limit=limit, scope=scope, origins=origins, papers=papers, vectors=vectors, level=level
    )


def search_methods(connection: sqlite3.Connection, text: str, limit: int = 10) -> list[tuple[str, float]]:
    """Return the methods whose name or summary holds any word of a text, by id, with BM25 (higher is better)."""
    words = list(dict.fromkeys(words_of(text[:LETTERS])))[:METHOD_WORDS]
    if not words or limit < 1:
        return []
    found = connection.execute(
        "SELECT id, -bm25(method_text, 0.0, 5.0, 1.0) AS score FROM method_text WHERE method_text MATCH ? "
        "ORDER BY score DESC, id LIMIT ?",
        (" OR ".join(f'"{word}"' for word in words), limit),
    )
    return [(method, score) for method, score in found]
