"""What a bounded buffer of past examples keeps, and how much of it is replayed: pure functions on arrays.

Examples are numbered from the oldest to the newest. A ranking lists all numbers, the one to keep first in front and
the one to evict first last; among equals the newer is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from random import Random

import numpy as np
from numpy.typing import NDArray


class Priority(Enum):
    """What makes a past example worth its place in the buffer."""

    recency = "recency"
    """New: the oldest are evicted first."""
    difficulty = "difficulty"
    """A high loss under the adapters of that time: what is known best is evicted first."""
    diversity = "diversity"
    """Far from all others in the embedding space: near duplicates are evicted first."""
    confidence = "confidence"
    """A low loss under the adapters of that time: what is known least is evicted first."""


def by_recency(count: int) -> list[int]:
    """Rank the newest first."""
    return list(range(count - 1, -1, -1))


def by_value(values: Sequence[float]) -> list[int]:
    """Rank the highest value first."""
    return sorted(range(len(values)), key=lambda i: (-values[i], -i))


def by_coverage(embeddings: NDArray[np.floating]) -> list[int]:
    """Rank by farthest-first traversal: every next point is the one farthest from all that are ranked before it.

    The first k points are a greedy k-center cover: no set of k covers the whole within less than half its radius
    (Gonzalez 1985). `embeddings` is (N, D); the traversal begins at the point nearest to the mean.
    """
    count = len(embeddings)
    if count == 0:
        return []
    points = np.asarray(embeddings, dtype=np.float64)  # (N, D)
    newer = np.arange(count)
    distance = -np.linalg.norm(points - points.mean(axis=0), axis=1)  # (N,), so that the nearest leads
    left = np.ones(count, dtype=bool)
    order: list[int] = []
    for step in range(count):
        best = distance[left].max()
        chosen = int(newer[left & (distance == best)].max())
        order.append(chosen)
        left[chosen] = False
        away = np.linalg.norm(points - points[chosen], axis=1)
        distance = away if step == 0 else np.minimum(distance, away)
    return order


def kept(ranking: Sequence[int], size: int) -> list[int]:
    """Return the numbers of the `size` examples that stay, oldest first."""
    return sorted(ranking[:size])


def replayed(new: int, stored: int, mix: float, seed: int) -> list[int]:
    """Draw which of the `stored` examples join `new` ones, so that they are a share `mix` of the whole.

    All are taken where fewer are stored than the share asks for. Oldest first; a function of the arguments only.
    """
    wanted = round(new * mix / (1.0 - mix))
    if wanted >= stored:
        return list(range(stored))
    return sorted(Random(f"replay/{seed}/{new}/{stored}").sample(range(stored), wanted))
