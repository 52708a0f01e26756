"""Campaigns compared: the gain of each arm, paired differences, and how many replicates would decide."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

from looper.metrics.power import ALPHA, POWER

MOST = 10_000
"""Replicates beyond which a difference counts as out of reach."""
Gains = Mapping[int, float]
"""Gain of a campaign's best program over the unchanged one, by replicate."""


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean with Student's 95 % interval; without one (None) for a single value."""
    n, mean = len(values), fmean(values)
    reach = None if n < 2 else _t(n - 1) * stdev(values) / math.sqrt(n)
    low, high = (None, None) if reach is None else (mean - reach, mean + reach)
    return {"estimate": mean, "low": low, "high": high, "n": n}


def compare_gains(a: Gains, b: Gains) -> dict[str, Any]:
    """Return `a` minus `b`, paired by replicate.

    Interval: Student's t. p: all sign flips of the differences, two-sided (see `sign_flips`), so that at least six
    replicates are needed for p < .05. `replicates_needed` is how many replicates of this mean and deviation a t test
    would need to find the difference four times in five, more than there are where these did not decide; None where no
    number below 10,000 would do, or nothing tells the deviation.
    """
    both = sorted(a.keys() & b.keys())
    differences = [a[i] - b[i] for i in both]
    p = sign_flips(differences)
    needed = replicates_needed(differences)
    found = interval(differences)
    verdict = verdict_of(found, p)
    if needed is not None and verdict == "inconclusive":
        needed = max(needed, len(both) + 1)  # those there are have been asked
    return {
        **found,
        "p_value": p,
        "won": sum(d > 0 for d in differences),
        "lost": sum(d < 0 for d in differences),
        "replicates_needed": needed,
        "verdict": verdict,
    }


def verdict_of(difference: Mapping[str, Any], p: float) -> str:
    """Return better, worse or inconclusive: the interval has to exclude 0 and, where it can, the test to agree.

    With fewer than six replicates the sign test cannot reach .05 whatever the data; there its smallest p is asked for.
    """
    low, high, n = difference["low"], difference["high"], difference["n"]
    if low is None or p > max(ALPHA, 2.0 / 2**n):
        return "inconclusive"
    return "better" if low > 0 else "worse" if high < 0 else "inconclusive"


def sign_flips(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the mean under random signs: exact up to 16 pairs, 1 where all are 0.

    Beyond 16 pairs it is Wilcoxon's signed-rank test.
    """
    kept = [d for d in differences if d != 0.0]
    if not kept:
        return 1.0
    total = abs(sum(kept)) * (1 - 1e-12)
    if len(kept) > 16:
        from scipy.stats import wilcoxon

        return float(wilcoxon(kept).pvalue)
    signs = itertools.product((1, -1), repeat=len(kept))
    extreme = sum(abs(sum(s * d for s, d in zip(row, kept, strict=True))) >= total for row in signs)
    return float(extreme / 2 ** len(kept))


def replicates_needed(differences: Sequence[float]) -> int | None:
    """Return the replicates with which a paired t test would find the mean difference with a power of .8."""
    if len(differences) < 2:
        return None
    deviation, mean = stdev(differences), abs(fmean(differences))
    if deviation == 0.0 or mean == 0.0:
        return None
    effect, low, high = mean / deviation, 2, MOST
    if t_power(effect, high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if t_power(effect, middle) >= POWER else (middle + 1, high)
    return low


def t_power(effect: float, n: int) -> float:
    """Return the power of the two-sided paired t test with n pairs; the effect is in standard deviations."""
    from scipy.stats import nct

    limit, shift = _t(n - 1), effect * math.sqrt(n)
    if shift > limit + 10.0:  # certain; scipy's noncentral t gives up far out
        return 1.0
    other = nct.cdf(-limit, n - 1, shift) if shift < 5.0 else 0.0  # there too, and it is below 1e-9 by then
    return float(nct.sf(limit, n - 1, shift) + other)


def spread_at(curves: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """Return lowest, median and highest score after each trial, over campaigns of one arm."""
    longest = max(len(curve) for curve in curves)
    out = []
    for i in range(longest):
        values = [curve[min(i, len(curve) - 1)] for curve in curves]
        out.append({"low": min(values), "median": median(values), "high": max(values)})
    return out


def _t(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - ALPHA / 2))
