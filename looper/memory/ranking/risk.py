"""What an experiment may cost: the risk of a crash, and the expected price."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from statistics import median

from looper.memory.ranking.posterior import latest, weight_of
from looper.memory.ranking.settings import Cost, Ranking
from looper.memory.rows import Evidence, Scope, Status, ancestors


@lru_cache(maxsize=4096)
def steps_apart(a: Scope, b: Scope) -> int:
    """Return the steps between two scopes through their nearest common ancestor."""
    return len(set(ancestors(a)) ^ set(ancestors(b)))


def crash_risks(
    methods: Collection[str], evidence: Sequence[Evidence], *, scope: Scope, settings: Ranking
) -> dict[str, float]:
    """Return the mean of the Beta posterior of the risk that a method's next run crashes or times out.

    A run counts half for each step that its scope is away (memory and kernels belong to a device), less when it
    is old, and a crash of k methods together is charged to each as 1 / k.
    """
    newest = latest(evidence)
    runs: dict[str, list[float]] = {method: [] for method in methods}
    crashes: dict[str, list[float]] = {method: [] for method in methods}
    for e in evidence:
        weight = weight_of(e.order, newest, settings)
        if settings.scopes:
            weight *= 0.5 ** steps_apart(scope, e.scope)
        failed = e.status is not Status.OK
        for method in set(e.methods) & runs.keys():
            share = weight / len(set(e.methods)) if failed else weight
            runs[method].append(share)
            if failed:
                crashes[method].append(share)
    prior = settings.crash_prior * settings.crash_strength
    return {
        method: (prior + math.fsum(crashes[method])) / (settings.crash_strength + math.fsum(runs[method]))
        for method in methods
    }


def relative_costs(methods: Collection[str], evidence: Sequence[Evidence], *, settings: Ranking) -> dict[str, float]:
    """Return what a run of each method costs relative to the median run of its scope; 1 where nothing is known.

    Shrunk to 1 as if two ordinary runs had been seen, so that one slow run says little. A price that is not above 0 is
    none: nothing was measured, or it is a mistake of whoever wrote it.
    """
    ratios: dict[str, list[float]] = {method: [2.0] for method in methods}
    if settings.cost is not Cost.FREE:
        prices = ((e, e.wall if settings.cost is Cost.WALL else e.cost) for e in evidence)
        priced = [(e, price) for e, price in prices if price is not None and 0.0 < price < math.inf]
        usual = {s: median(p for e, p in priced if e.scope == s) for s in {e.scope for e, _ in priced}}
        for e, price in priced:
            for method in set(e.methods) & ratios.keys():
                ratios[method].append(price / usual[e.scope])
    return {method: math.fsum(found) / (1 + len(found)) for method, found in ratios.items()}
