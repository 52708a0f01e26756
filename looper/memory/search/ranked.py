"""A ranking, and how its best are picked: the same in every order of summing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ranked = list[tuple[int, float]]
"""Rows with their scores, best first."""


def best(pairs: Iterable[tuple[int, float]], limit: int) -> Ranked:
    """Return the best of some rows, older ones first in ties."""
    # Rounded, for the last digits of a sum depend on its order.
    rounded = ((row, round(score, 9)) for row, score in pairs)
    return sorted(rounded, key=lambda pair: (-pair[1], pair[0]))[:limit]


def top(rows: NDArray[np.int64], scores: NDArray[np.number[Any]], count: int) -> NDArray[np.int64]:
    """Return the rows of the greatest scores in no order, older ones in ties; `rows` must ascend."""
    if len(rows) <= count:
        return rows
    bar = np.partition(scores, -count)[-count]
    return np.concatenate([rows[scores > bar], rows[scores == bar]])[:count]
