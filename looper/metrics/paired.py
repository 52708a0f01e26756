"""The paired comparison of two arms on the tasks that both worked on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from looper.errors import LooperError
from looper.metrics.intervals import Values, clean, denominator, effective_count
from looper.metrics.power import ALPHA, detectable_effect
from looper.proportions import z_of
from looper.records import Record

FLIPS = 20_000


class Difference(Record):
    """Mean of `a - b` over the paired tasks, with its 95 % interval and an exact test."""

    estimate: float
    low: float
    high: float
    n: int
    """Distinct tasks that both arms were measured on."""
    p_value: float
    """Two-sided: exact McNemar for 0/1 outcomes, exact sign flips for averages."""
    detectable_effect: float | None
    """Smallest true difference found in 80 % of such comparisons; None if these few tasks could show none."""
    won: int
    """Tasks on which the first arm did better."""
    lost: int
    """Tasks on which it did worse."""
    excluded: int = 0
    """Tasks left out because the machine failed in either arm."""


def compare(a: Values, b: Values) -> Difference:
    """Return `a` minus `b`, paired by task.

    * p: the sign-flip permutation test on the sum of differences, enumerated exactly; for 0/1 outcomes
      it is the exact McNemar test.
    * interval: Tango's score interval for paired proportions (Tango 1998, Statistics in Medicine 17:891).
      For averaged outcomes the won and lost mass and n are scaled to the count of independent 0/1
      pairs that has the variance seen over tasks (see `intervals.rate`). It is widened to hold 0 where p >= .05,
      so that interval and test never disagree.
    * detectable effect: see `power.detectable_effect`, at the same count and the discordance seen.

    A None value is a machine failure: the task is left out in both arms and counted.
    Raises LooperError for a task that one arm lacks, and where no task was measured in both.
    """
    _check_same_tasks(a, b)
    kept_a, kept_b = clean(a), clean(b)
    tasks = [task for task in kept_a if task in kept_b]
    if not tasks:
        raise LooperError(f"a comparison needs a task measured in both arms; the machine failed on all {len(a)}")
    differences = [kept_a[task] - kept_b[task] for task in tasks]
    k = denominator([kept_a[task] for task in tasks] + [kept_b[task] for task in tasks])
    n = len(tasks)
    mean = sum(differences) / n
    gained = sum(d for d in differences if d > 0)
    dropped = -sum(d for d in differences if d < 0)
    single = (gained + dropped) / n - mean**2
    spread = sum(d * d for d in differences) / n - mean**2
    scale = effective_count(single, spread, n, k) / n
    p_value = sign_flip(differences, k)
    low, high = tango(gained * scale, dropped * scale, n * scale)
    if p_value >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(
        estimate=mean,
        low=min(low, mean),
        high=max(high, mean),
        n=n,
        p_value=p_value,
        detectable_effect=detectable_effect(n * scale, (gained + dropped) / n),
        won=sum(d > 1e-9 for d in differences),
        lost=sum(d < -1e-9 for d in differences),
        excluded=len(a) - n,
    )


def _check_same_tasks(a: Values, b: Values) -> None:
    if not a and not b:
        raise LooperError("a comparison needs tasks, but both arms are empty")
    for first, second, name in ((a, b, "second"), (b, a, "first")):
        missing = sorted(set(first) - set(second))
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise LooperError(
                f"the {name} arm has no outcome for {shown}; both arms must work on the same tasks: "
                "run the missing sessions (the same command goes on where it stopped)"
            )


def sign_flip(differences: Sequence[float], k: int | None = None, *, seed: int = 0) -> float:
    """Return the two-sided p of the sign-flip permutation test on the sum of differences.

    Exact where all differences are multiples of 1/k (the distribution of the sum is built by
    convolution); otherwise 20,000 seeded random flips.
    """
    import numpy as np

    sizes = [abs(d) for d in differences if abs(d) > 1e-9]
    if not sizes:
        return 1.0
    if k is None:
        k = denominator(sizes)
    if k is None:
        signs = np.random.default_rng(seed).integers(0, 2, size=(FLIPS, len(sizes)), dtype=np.int8)
        sums = (2.0 * signs - 1.0) @ np.asarray(sizes)
        extreme = int(np.sum(np.abs(sums) >= abs(sum(differences)) - 1e-9))
        return (1 + extreme) / (1 + FLIPS)
    steps = [round(size * k) for size in sizes]
    total = sum(steps)
    chance = np.zeros(total + 1)  # chance[i]: probability that the won mass is i
    chance[0] = 1.0
    for step in steps:
        chance *= 0.5
        chance[step:] += chance[:-step].copy()
    observed = abs(round(sum(differences) * k))
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(np.sum(chance[sums >= observed])))


def tango(won: float, lost: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Tango's score interval for the difference (won - lost) / n; counts may be fractional."""
    z = z_of(confidence)

    def score(delta: float) -> float:
        linear = -won - lost + (2 * n - won + lost) * delta
        constant = -lost * delta * (1 - delta)
        root = math.sqrt(max(linear**2 - 8 * n * constant, 0.0))
        nuisance = (root - linear) / (4 * n)
        variance = n * (2 * nuisance + delta * (1 - delta))
        gap = won - lost - n * delta
        if variance <= 1e-12:
            return math.copysign(math.inf, gap) if abs(gap) > 1e-9 else 0.0
        return gap / math.sqrt(variance)

    estimate = (won - lost) / n
    low = _crossing(lambda delta: score(delta) < z, -1.0, estimate)
    high = _crossing(lambda delta: score(delta) < -z, estimate, 1.0)
    return low, high


def _crossing(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """Return where a condition that is false at `low` side turns true, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if beyond(middle):
            high = middle
        else:
            low = middle
    return (low + high) / 2
