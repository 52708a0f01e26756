"""Power of the exact McNemar test: which difference a comparison could have detected."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

ALPHA = 0.05
POWER = 0.8


def power(n: int, discordance: float, effect: float, alpha: float = ALPHA) -> float:
    """Return the exact power of the two-sided exact McNemar test.

    m ~ Binomial(n, discordance) pairs differ, and of these Binomial(m, (discordance + effect) / (2 discordance))
    favour the better arm (unconditional power, Duffy 1984). An effect above the discordance raises it: a
    difference of 0.3 takes at least 30 % discordant pairs.
    """
    import numpy as np
    from scipy.stats import binom

    if effect <= 0:
        return 0.0
    psi = min(max(discordance, effect), 1.0)
    share = min((psi + effect) / (2 * psi), 1.0)
    m = np.arange(n + 1)
    critical = _critical(n, alpha)  # wins that are needed of m; m + 1 where no result is enough
    reject = binom.sf(critical - 1, m, share) + np.where(critical <= m, binom.cdf(m - critical, m, share), 0.0)
    return float(np.sum(binom.pmf(m, n, psi) * reject))


@lru_cache(maxsize=64)
def _critical(n: int, alpha: float) -> Any:
    import numpy as np
    from scipy.stats import binom

    m = np.arange(n + 1)
    # Smallest c with P(W >= c | m, 1/2) <= alpha / 2.
    critical = binom.isf(alpha / 2, m, 0.5).astype(int) + 1
    return np.where(m == 0, 1, np.minimum(critical, m + 1))


def detectable_effect(n: float, discordance: float, alpha: float = ALPHA, wanted: float = POWER) -> float | None:
    """Return the smallest true difference that n pairs with this discordance detect with the wanted power.

    None where no difference would do: with fewer than six pairs the exact test never reaches p < .05.
    """
    whole = math.floor(n + 1e-9)
    if whole < 1 or power(whole, discordance, 1.0, alpha) < wanted:
        return None
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        if power(whole, discordance, middle, alpha) >= wanted:
            high = middle
        else:
            low = middle
    return round(high, 6)
