"""`retrieval=hybrid`: full-text search fused with vectors that need no download."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from looper.memory.fts import DEPTH, ranked
from looper.memory.knowledge import SessionKnowledge
from looper.memory.search.vectors import Vectors, add_vectors
from looper.memory.sessions import Session
from looper.memory.store import MemoryStore

DIMENSIONS = 1024
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Hybrid(SessionKnowledge):
    """Fuses three rankings by reciprocal rank: BM25 of words, names in code, and the cosine of hashed vectors.

    The vectors know spelling, not meaning: they bring words together that share a stem or a part (`sorted`, `sorting`;
    `parse_row`, `row_parser`), and nothing that shares no letters. Something is always nearest, so an issue with any
    word recalls notes even where `fts` finds none.
    """

    def rank(self, store: MemoryStore, candidates: Sequence[Session], text: str) -> list[Session]:
        """Return the candidates by the fused ranking, best first; without any word in the text there are none."""
        return ranked(store, candidates, text, max(DEPTH, 20 * self.limit), SPELLING)

    def index(self, store: MemoryStore) -> None:
        """Add the vectors of new passages."""
        add_vectors(store.connection, SPELLING)


def spelling(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return hashed counts of words and of their trigrams: (texts, dimensions), not normalised.

    A feature goes to the dimension and the sign that its CRC-32 gives, weighted 1 + log(count) (Weinberger et al.
    2009). Features are not weighted by rarity: a stored vector would change with every session that is added.
    """
    vectors = np.zeros((len(texts), DIMENSIONS))
    for row, text in zip(vectors, texts, strict=True):
        words = _WORD.findall(text.lower().replace("_", " "))
        padded = [f" {word} " for word in words]
        features = Counter(padded)
        features.update(word[i : i + 3] for word in padded for i in range(len(word) - 2) if len(word) > 3)
        for feature, count in features.items():
            code = crc32(feature.encode())
            row[code % DIMENSIONS] += (1.0 + math.log(count)) * (1.0 if code >> 31 else -1.0)
    return vectors


SPELLING = Vectors(model=f"looper/spelling-{DIMENSIONS}", embed=spelling)
"""Hashed words and trigrams, under the name that the store keeps their vectors by."""
