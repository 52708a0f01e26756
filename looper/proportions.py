"""The interval of a share: Wilson's, for whoever displays or compares rates."""

from __future__ import annotations

import math
from statistics import NormalDist


def z_of(confidence: float) -> float:
    """Return the two-sided normal quantile, 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927); counts may be fractional.

    Raises ValueError for n <= 0 or successes outside [0, n].
    """
    if n <= 0 or not -1e-9 <= successes <= n + 1e-9:
        raise ValueError(f"{successes} successes of {n} is no proportion; need 0 <= successes <= n and n > 0")
    z = z_of(confidence)
    p = min(max(successes / n, 0.0), 1.0)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and 1 the bound is exactly the estimate; rounding must not put it a hair inside.
    low = 0.0 if p == 0.0 else max(0.0, centre - half)
    high = 1.0 if p == 1.0 else min(1.0, centre + half)
    return low, high
