"""What the ranking is compared with: upper confidence bounds with the noise known."""

from __future__ import annotations

import numpy as np

from looper.memory.ranking.posterior import Array


def upper_bounds(totals: Array, counts: Array, *, sigma: float, width: float = 1.0) -> Array:
    """Return UCB1 indices for normal rewards of known noise (Auer, Cesa-Bianchi and Fischer 2002).

    totals, counts: sum and number of each arm's rewards. Each arm begins with one reward of 0, so that a budget below
    the number of arms is not spent on trying every one of them once.
    """
    seen = counts + 1.0
    bonus = np.sqrt(2.0 * np.log(1.0 + counts.sum()) / seen)
    bounds: Array = totals / seen + width * sigma * bonus
    return bounds
