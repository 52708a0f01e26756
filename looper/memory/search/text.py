"""The best rows for some words by BM25, exactly or nearly.

Below EXACT, rows are chosen by a sketch of BM25 that needs no more than which rows hold a term, and which of them in
their title: FTS5 says so 15 times as fast as it scores. The rows chosen are then scored exactly in their texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from looper.memory.search.maxscore import rank_exactly
from looper.memory.search.postings import K1, TOP, WEIGHTS, Scored, TextIndex
from looper.memory.search.ranked import Ranked, best, top
from looper.memory.search.words import Term

TERMS = 64
"""Terms of a question that count, the rarest."""

USUAL = 100_000
"""Chunks up to which a level scores as many rows as it says."""

COUNTED = 2_000
"""Rows from which a single term's hits are read from the index's pages; FTS5 scores fewer in less time."""

LENGTHS, BATCHES = 3, 16
"""Rows of a single term whose lengths are read at a time, for each row that would be scored in its text; how often."""

ONCE = TOP / (1.0 + K1)
"""What a term adds that stands once in a body of average length, as a multiple of its idf."""

IN_TITLE = TOP * sum(WEIGHTS) / (sum(WEIGHTS) + K1)
"""What it adds if it stands once in the title too."""


class Level(StrEnum):
    """How much of the exact ranking is given up for speed; measured in experiments/memory_speed."""

    EXACT = "exact"
    """The rows of FTS5's own bm25() over any of the words, proved for each question."""
    CAREFUL = "careful"
    """The best 400 rows of the sketch are scored; more in an index of over 100,000 chunks, as in all that follow."""
    BALANCED = "balanced"
    """The best 150."""
    FAST = "fast"
    """The best 50."""
    RAREST = "rarest"
    """The best 50 of those that hold the rarest words; the other words only order them."""


@dataclass(frozen=True)
class Pruning:
    """What a level means."""

    rescored: int
    """Rows of the sketch that are scored exactly, in an index of up to 100,000 chunks."""
    enough: int | None = None
    """Rows after which no further term is looked at; None to look at all."""


PRUNING = {
    Level.CAREFUL: Pruning(400),
    Level.BALANCED: Pruning(150),
    Level.FAST: Pruning(50),
    Level.RAREST: Pruning(50, enough=500),
}


def rank(
    index: TextIndex, terms: Sequence[Term], limit: int, level: Level, mask: NDArray[np.bool_] | None = None
) -> Ranked:
    """Return the best rows that the mask allows with their BM25 (higher is better), best first, older first in ties.

    The answer does not depend on what the index has in memory.
    """
    terms = terms[:TERMS]
    if not terms or limit < 1:
        return []
    if level is Level.EXACT:
        return rank_exactly(index, terms, limit, mask)
    pruning = PRUNING[level]
    # The larger the index, the more rows are alike to the sketch.
    count = max(round(pruning.rescored * max(1.0, math.sqrt(index.rows / USUAL))), 3 * limit)
    if len(terms) == 1:
        return _of_one(index, terms[0], limit, LENGTHS * count, mask)
    return best(index.score(terms, _sketched(index, terms, count, pruning, mask).tolist()).items(), limit)


def _sketched(
    index: TextIndex, terms: Sequence[Term], count: int, pruning: Pruning, mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Return the best rows, every term counted as if it stood once, in a text of average length."""
    sums = np.zeros(index.highest + 1)
    for term in terms:
        holding, weight = index.holding(term), index.idf(term)
        sums[holding.rows] += ONCE * weight
        sums[holding.titled] += (IN_TITLE - ONCE) * weight
        if pruning.enough is not None and np.count_nonzero(sums if mask is None else sums * mask) >= pruning.enough:
            break
    if mask is not None:
        sums *= mask
    seen = np.flatnonzero(sums)
    return top(seen, sums[seen], count)


def _of_one(index: TextIndex, term: Term, limit: int, count: int, mask: NDArray[np.bool_] | None) -> Ranked:
    """Return the best rows for a single term, of which the sketch has nothing to say: to it all its rows are alike.

    FTS5's pages say how often a frequent term stands in each row, titles apart, so of BM25 nothing is missing but the
    lengths. They are read where the term stands most often, until more of them change nothing.
    """
    counted = index.counted(term) if term.rows > COUNTED else None
    if counted is None or counted.hits is None:
        found = index.ask(term.quoted, limit if mask is None else -1)
        return _best_of(found if mask is None else found.only(mask[found.rows]), limit)
    rows, hits = counted.rows, counted.hits
    if mask is not None:
        allowed = mask[rows]
        rows, hits = rows[allowed], hits[allowed]
    most = top(np.arange(len(rows)), hits, BATCHES * count)
    most = most[np.lexsort((most, -hits[most].astype(np.int64)))]
    answer: Ranked = []
    for start in range(0, len(most), count):
        part = most[start : start + count]
        before, answer = answer, best(answer + _best_of(index.bm25(term, rows[part], hits[part]), limit), limit)
        if answer == before:
            break
    return answer


def _best_of(found: Scored, limit: int) -> Ranked:
    return best(zip(found.rows.tolist(), found.scores.tolist(), strict=True), limit)
