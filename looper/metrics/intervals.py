"""Rates with intervals, from outcomes that are 0/1 or averages of a few 0/1 sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from looper.errors import LooperError
from looper.proportions import wilson
from looper.records import Record

Values = Mapping[str, float | None]
"""Outcome in [0, 1] of each distinct task; None where the machine failed and the agent was not measured."""

MAX_DENOMINATOR = 120


class Rate(Record):
    """A share of distinct tasks with its 95 % interval."""

    estimate: float
    low: float
    high: float
    n: int
    """Distinct tasks."""
    excluded: int = 0
    """Tasks left out because the machine failed, not the agent."""


def denominator(values: Iterable[float]) -> int | None:
    """Return the smallest k such that every value is a multiple of 1/k; None if it would exceed 120.

    1 for 0/1 outcomes, 2 for averages over two worlds, and so on.
    """
    distinct = set(values)
    for k in range(1, MAX_DENOMINATOR + 1):
        if all(abs(value * k - round(value * k)) < 1e-9 for value in distinct):
            return k
    return None


def clean(values: Values) -> dict[str, float]:
    """Return the measured tasks only, checked to lie in [0, 1]; raises ValueError for any other value."""
    kept = {task: value for task, value in values.items() if value is not None}
    for task, value in kept.items():
        if not -1e-9 <= value <= 1 + 1e-9:  # also catches NaN
            raise ValueError(f"outcome {value} of task {task!r} is outside [0, 1]")
    return kept


def rate(values: Values) -> Rate:
    """Return the mean outcome over distinct tasks, with Wilson's interval at the effective count.

    For 0/1 outcomes it is exactly Wilson's interval with n tasks. For averages over worlds or
    attempts the count is p(1 - p) / s^2 * n, where s^2 is the variance over tasks: the number of
    independent 0/1 trials that would be as precise. It lies between n (a task's sessions always agree)
    and k n (they are independent), and is capped at k n: sessions that cancel each other by
    design, as in counterbalanced worlds, would otherwise seem infinitely precise.

    The interval speaks of tasks drawn from the same source; it does not hold the spread over training seeds.

    Raises LooperError if no task was measured.
    """
    kept = list(clean(values).values())
    if not kept:
        raise LooperError(f"a rate needs a measured task, but all {len(values)} failed for the machine's reasons")
    n = len(kept)
    p = sum(kept) / n
    spread = sum((value - p) ** 2 for value in kept) / n
    effective = effective_count(p * (1 - p), spread, n, denominator(kept))
    low, high = wilson(p * effective, effective)
    return Rate(estimate=p, low=min(low, p), high=max(high, p), n=n, excluded=len(values) - n)


def effective_count(single: float, spread: float, n: int, k: int | None) -> float:
    """Return how many independent single sessions n averaged tasks are worth: n * single / spread in [n, k n].

    `single` is the variance that one session a task would have, `spread` the variance seen over tasks.
    """
    if k is None or k == 1 or single <= 1e-12:
        return float(n)
    if spread <= 1e-12:
        return float(n * k)
    return n * min(max(single / spread, 1.0), float(k))
