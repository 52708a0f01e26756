"""The exact ranking by BM25 without reading the lists of frequent words where they cannot matter.

Lists are read rarest term first. When what the unread terms could add no longer lifts an unseen row to the last place
of the answer, reading stops (MaxScore: Turtle and Flood 1995), and the rows that were seen are scored over all terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from looper.memory.search.postings import TOP, TextIndex
from looper.memory.search.ranked import Ranked, best, top
from looper.memory.search.words import Term

CHEAP = 500
"""A list of so many rows is read without asking whether it is needed."""

SEEDS = 10
"""Rows beyond the limit whose texts are counted to learn how good the last place is."""

COUNTING, PASSING = 20.0, 0.03
"""What counting a text and passing over a row cost, where scoring a row of a list costs 1."""


def rank_exactly(index: TextIndex, terms: Sequence[Term], limit: int, mask: NDArray[np.bool_] | None = None) -> Ranked:
    """Return the best rows that the mask allows with their BM25, best first, older first in ties."""
    return _Question(index, terms, limit, mask).answer()


class _Question:
    """One question under way."""

    def __init__(self, index: TextIndex, terms: Sequence[Term], limit: int, mask: NDArray[np.bool_] | None) -> None:
        self.index, self.limit, self.mask = index, limit, mask
        # What is in memory costs nothing, so it goes first.
        self.terms = sorted(terms, key=lambda term: (not index.has_scores(term), term.rows))
        self.sums = np.zeros(index.highest + 1)  # BM25 so far, by row
        self.seen = np.zeros(0, np.int64)  # rows above 0, as of the last look
        self.full: dict[int, float] = {}  # BM25 over all terms, of rows whose texts were counted

    def answer(self) -> Ranked:
        unread = sum(self.index.idf(term) for term in self.terms) * TOP
        for place, term in enumerate(self.terms):
            dear = place and term.rows > CHEAP and not self.index.has_scores(term)
            if dear and self._settled(place, unread):
                return self._finished(place, unread)
            found = self.index.scored(term)
            self.sums[found.rows] += found.scores
            unread -= self.index.idf(term) * TOP
        self._look()
        return self._ranked()

    def _settled(self, place: int, unread: float) -> bool:
        """Tell whether the lists from this place on can stay unread, and whether that is cheaper."""
        self._look()
        if len(self.seen) < self.limit:
            return False
        self._count(top(self.seen, self.sums[self.seen], SEEDS + self.limit))
        if unread > self._bar():
            return False
        frequent = sum(term.rows for term in self.terms[place:])
        return min(len(self._left(unread)) * COUNTING, self._together(place)) < frequent

    def _finished(self, place: int, unread: float) -> Ranked:
        """Score what was seen over all terms, in the texts or by FTS5, whichever is cheaper."""
        left = self._left(unread)
        if len(left) * COUNTING <= self._together(place):
            self._count(left)
            return best(self.full.items(), self.limit)
        found = self.index.scored_by_both(self.terms[:place], self.terms[place:])
        self.sums[found.rows] = found.scores
        self._look()
        return self._ranked()

    def _together(self, place: int) -> float:
        """Return the price of asking FTS5 for the seen rows that hold any of the unread terms."""
        read, unread = (sum(term.rows for term in part) for part in (self.terms[:place], self.terms[place:]))
        return read + PASSING * unread

    def _look(self) -> None:
        if self.mask is not None:
            self.sums *= self.mask
        self.seen = np.flatnonzero(self.sums)

    def _bar(self) -> float:
        """Return the score that the last place has at least."""
        return sorted(self.full.values())[-self.limit]

    def _left(self, unread: float) -> NDArray[np.int64]:
        """Return the seen rows that may still be in the answer."""
        return self.seen[self.sums[self.seen] + unread >= self._bar() - 1e-9]

    def _count(self, rows: NDArray[np.int64]) -> None:
        new = [row for row in rows.tolist() if row not in self.full]
        if new:
            self.full.update(self.index.score(self.terms, new))

    def _ranked(self) -> Ranked:
        rows, scores = self.seen, self.sums[self.seen]
        if len(rows) > self.limit:
            keep = scores >= np.partition(scores, -self.limit)[-self.limit] - 1e-9
            rows, scores = rows[keep], scores[keep]
        return best(zip(rows.tolist(), scores.tolist(), strict=True), self.limit)
