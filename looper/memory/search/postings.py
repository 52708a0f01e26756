"""What is read of the full-text index, kept in memory while the index stays as it is.

BM25 of a question is the sum of the BM25 of its terms, so what is known of a term serves every question that has it.
Frequent terms, whose lists are dear to read, are the ones that questions share.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from looper.memory.search.doclists import counts, read_numbers
from looper.memory.search.words import Counter, Term

WEIGHTS = (5.0, 1.0)
"""Of a hit in the title and of one in the body."""

K1, B = 1.2, 0.75
"""Constants of FTS5's bm25()."""

CACHE = 128_000_000
"""Bytes of lists that are kept, of each of the two kinds."""

FREQUENT = 30_000
"""Rows from which a term's list is read from the index's pages; FTS5 lists fewer in less time."""

SMALL = 2**16 - 1
"""Hits up to which a list keeps them in two bytes each."""

MASKS = 8
"""Filters that are kept, a byte for each row."""

TOP = K1 + 1.0
"""What a term adds at most, as a multiple of its idf: a body of nothing else."""


@dataclass(frozen=True)
class Scored:
    """The rows that hold a term, with the term's BM25 in each (higher is better)."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]

    def only(self, these: NDArray[np.bool_]) -> Scored:
        """Return some of the rows."""
        return Scored(self.rows[these], self.scores[these])

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.rows.nbytes + self.scores.nbytes


@dataclass(frozen=True)
class Holding:
    """The rows that hold a term, and those of them that hold it in their title; a small part of the price of Scored."""

    rows: NDArray[np.signedinteger[Any]]
    titled: NDArray[np.signedinteger[Any]]
    hits: NDArray[np.unsignedinteger[Any]] | None = None
    """How often each row holds it, titles counted WEIGHTS[0] times; None where that was not read."""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.rows.nbytes + self.titled.nbytes + (0 if self.hits is None else self.hits.nbytes)


List = TypeVar("List", Scored, Holding)


class TextIndex:
    """The full-text index of one connection, with what has been read of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.known: dict[str, int] = {}
        """Rows that hold each stem that was looked up."""
        self.masks: dict[str, NDArray[np.bool_]] = {}
        """Rows that a filter lets through, by the filter; the last few."""
        self.rows = 0
        self.highest = 0
        self.writing = False
        self._length = 1.0
        self._state: list[bytes] = []
        self._scored = _Kept[Scored]()
        self._holding = _Kept[Holding]()

    def refresh(self, *, writing: bool = False) -> None:
        """Forget what was read if the index has changed since, or may have in a transaction of this connection.

        Call it at the start of a search, inside the transaction that the search reads in.
        """
        # Record 1 holds the counts of rows and tokens, record 10 the structure, which every write to the index changes.
        blocks = self.connection.execute("SELECT block FROM chunk_text_data WHERE id IN (1, 10) ORDER BY id")
        state = [block for (block,) in blocks]
        # What a transaction has written so far, its own connection sees before these records do.
        if state == self._state and not (writing or self.writing):
            return
        self.writing = writing
        self._state = state
        self.known, self.masks = {}, {}
        self._scored, self._holding = _Kept(), _Kept()
        totals = read_numbers(state[0]) if state else []
        self.rows = totals[0] if totals else 0
        self._length = sum(totals[1:]) / self.rows if self.rows else 1.0
        self.highest = self.connection.execute("SELECT coalesce(max(id), 0) FROM chunk").fetchone()[0]

    def keep_mask(self, key: str, mask: NDArray[np.bool_]) -> None:
        """Keep what a filter lets through, in place of the oldest of these."""
        if len(self.masks) >= MASKS:
            del self.masks[next(iter(self.masks))]
        self.masks[key] = mask

    def idf(self, term: Term) -> float:
        """Return the weight of a term; next to nothing for one that half of the rows hold."""
        return max(math.log((self.rows - term.rows + 0.5) / (term.rows + 0.5)), 1e-6)

    def has_scores(self, term: Term) -> bool:
        """Tell whether a term's scores are in memory."""
        return term.stem in self._scored

    def scored(self, term: Term) -> Scored:
        """Return the rows of a term with their scores."""
        kept = self._scored.get(term.stem)
        return kept or self._scored.keep(term.stem, self.ask(term.quoted))

    def scored_by_both(self, some: Sequence[Term], others: Sequence[Term]) -> Scored:
        """Return the rows that hold a term of each side, with their BM25 over all these terms."""
        return self.ask(" AND ".join(f"({' OR '.join(term.quoted for term in side)})" for side in (some, others)))

    def ask(self, match: str, best: int = -1) -> Scored:
        """Return rows with their BM25 over the phrases of a match; only the best, in order, where it is said."""
        order = "ORDER BY 2 DESC, 1 LIMIT ?" if best >= 0 else "LIMIT ?"
        found = self.connection.execute(
            f"SELECT rowid, -bm25(chunk_text, ?, ?) FROM chunk_text WHERE chunk_text MATCH ? {order}",
            (*WEIGHTS, match, best),
        ).fetchall()
        pairs = np.fromiter(chain.from_iterable(found), np.float64, 2 * len(found)).reshape(-1, 2)
        return Scored(pairs[:, 0].astype(np.int64), pairs[:, 1])

    def holding(self, term: Term) -> Holding:
        """Return the rows of a term."""
        kept = self._holding.get(term.stem)
        if kept is None and term.rows >= FREQUENT:
            read = self._read(term)
            if read and self._holding.size > CACHE // 4:
                # Hits are for single words; without them more lists have room.
                read = Holding(read.rows, read.titled)
            kept = read and self._holding.keep(term.stem, read)
        return kept or self._holding.keep(term.stem, Holding(self._rows(term.quoted), self._rows(titled(term))))

    def counted(self, term: Term) -> Holding | None:
        """Return the rows of a term with their hits; None where the index's pages cannot be read."""
        kept = self._holding.get(term.stem)
        if kept is not None and kept.hits is not None:
            return kept
        read = self._read(term)
        return read and self._holding.keep(term.stem, read)

    def _read(self, term: Term) -> Holding | None:
        # The pages do not have what a transaction under way has written.
        found = None if self.writing else counts(self.connection, "chunk_text", term.stem)
        # FTS5's own count guards against a format that is read wrongly.
        if found is None or len(found.rows) != term.rows:
            return None
        rows = found.rows.astype(self._kind)
        hits = np.uint32(WEIGHTS[0]) * found.titles + np.uint32(WEIGHTS[1]) * found.bodies
        return Holding(rows, rows[found.titles > 0], hits if hits.max() > SMALL else hits.astype(np.uint16))

    @property
    def _kind(self) -> type[np.signedinteger[Any]]:
        return np.int32 if self.highest < 2**31 else np.int64

    def _rows(self, match: str) -> NDArray[np.signedinteger[Any]]:
        # As one text, for making a Python object of each row takes ten times as long as finding it.
        query = "SELECT group_concat(rowid) FROM chunk_text WHERE chunk_text MATCH ?"
        (text,) = self.connection.execute(query, (match,)).fetchone()
        return np.fromstring(text, np.int64, sep=",").astype(self._kind) if text else np.zeros(0, self._kind)

    def bm25(self, term: Term, rows: NDArray[np.signedinteger[Any]], hits: NDArray[np.unsignedinteger[Any]]) -> Scored:
        """Return some rows of a single term with their BM25."""
        found = self.connection.execute(
            "SELECT id, sz FROM chunk_text_docsize WHERE id IN (SELECT value FROM json_each (?))",
            (json.dumps(rows.tolist()),),
        )
        lengths = {row: _length(sizes) for row, sizes in found}
        norms = self._norms(np.array([lengths[row] for row in rows.tolist()], float))
        return Scored(rows.astype(np.int64), self.idf(term) * TOP * hits / (hits + norms))

    def _norms(self, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        return K1 * (1.0 - B + B * lengths / self._length)

    def score(self, terms: Sequence[Term], rows: Sequence[int]) -> dict[int, float]:
        """Return the BM25 of some rows over all terms, counted in their texts."""
        texts = self.connection.execute(
            "SELECT c.id, c.title, c.body, d.sz FROM chunk AS c JOIN chunk_text_docsize AS d ON d.id = c.id "
            "WHERE c.id IN (SELECT value FROM json_each (?))",
            (json.dumps(list(rows)),),
        ).fetchall()
        counter = Counter(term.stem for term in terms)
        titles = np.array(counter.counts([title for _, title, _, _ in texts]), float).reshape(-1, len(terms))
        bodies = np.array(counter.counts([body for _, _, body, _ in texts]), float).reshape(-1, len(terms))
        lengths = np.array([_length(sizes) for _, _, _, sizes in texts])
        hits = WEIGHTS[0] * titles + WEIGHTS[1] * bodies  # (rows, terms)
        norms = self._norms(lengths)
        weights = np.array([self.idf(term) * TOP for term in terms])
        scores = (hits / (hits + norms[:, None])) @ weights
        return dict(zip((row for row, _, _, _ in texts), scores.tolist(), strict=True))


def titled(term: Term) -> str:
    """Return the match for a term in titles."""
    return f"{{title}} : {term.quoted}"


@lru_cache(maxsize=2**14)
def _length(sizes: bytes) -> int:
    """Read how long a row is, from the lengths of its columns."""
    return sum(read_numbers(sizes))


class _Kept(Generic[List]):
    """The lists that were asked for last, as many as there is room for."""

    def __init__(self) -> None:
        self._lists: OrderedDict[str, List] = OrderedDict()
        self.size = 0
        """Bytes in memory."""

    def __contains__(self, stem: str) -> bool:
        return stem in self._lists

    def get(self, stem: str) -> List | None:
        """Return a list that was kept."""
        found = self._lists.get(stem)
        if found is not None:
            self._lists.move_to_end(stem)
        return found

    def keep(self, stem: str, new: List) -> List:
        """Keep a list in place of those that were not asked for the longest; returns it."""
        before = self._lists.pop(stem, None)
        self._lists[stem] = new
        self.size += new.size - (0 if before is None else before.size)
        while self.size > CACHE:
            _, dropped = self._lists.popitem(last=False)
            self.size -= dropped.size
        return new
