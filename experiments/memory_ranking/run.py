"""Simulate campaigns with planted effects and compare the ranking, its ablations and its rivals by regret.

    python experiments/memory_ranking/run.py [--campaigns 200] [--processes 1] [--tune]

Regret of a campaign: the mean over its steps of what an oracle would have gained by then less what the policy's kept
changes truly improve, in multiples of one measurement's noise. Lower is better.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from world import SIGMA, TARGET, Campaign, Setting, World, oracle, world_of

from looper.memory.ranking.baselines import upper_bounds
from looper.memory.ranking.rank import rank, shuffled
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence

Shower = Callable[[Campaign, int], list[str]]
OURS = Ranking(sigma=SIGMA)
SETTINGS = {
    "full": Setting(),
    "plain": Setting(flip=0.0, drift=0.0, crashing=0.0, unwilling=0.0, bundled=0.0),
    "no history": Setting(history=0),
}
"""full: all difficulties; plain: none of those that the switches are for; no history: an empty memory."""


def ours(campaign: Campaign, step: int, *, settings: Ranking = OURS, placebo: bool = False) -> list[str]:
    world, seed = campaign.world, campaign.world.seed * 1000 + step
    methods, evidence = list(world.methods), list(campaign.evidence)
    if placebo:
        # What the past taught is of the wrong methods; what this campaign measures is true.
        methods, past = shuffled(methods, list(world.history), seed=world.seed)
        evidence = past + campaign.local()
    ranked = rank(
        methods,
        evidence,
        campaign.exposures,
        scope=TARGET,
        seed=seed,
        settings=settings,
        relevance=world.relevance,
        present=campaign.kept,
        since=campaign.since,
    )
    return [one.method for one in ranked[: world.setting.pack]]


def ucb(campaign: Campaign, step: int, *, pooled: bool, width: float) -> list[str]:
    """UCB1 with the noise known, ties by relevance; `pooled` also learns from the history, as if of this scope."""
    evidence: Sequence[Evidence] = campaign.evidence if pooled else campaign.local()
    names = campaign.left
    at = {name: i for i, name in enumerate(names)}
    totals, counts = np.zeros(len(names)), np.zeros(len(names))
    for e in evidence:
        for name in e.methods:
            if name in at:
                # A crash gains nothing; a joint experiment's delta is shared.
                totals[at[name]] += (e.delta or 0.0) / len(e.methods)
                counts[at[name]] += 1.0
    bounds = upper_bounds(totals, counts, sigma=SIGMA, width=width)
    order = sorted(names, key=lambda name: (-bounds[at[name]], -campaign.world.relevance[name]))
    return order[: campaign.world.setting.pack]


def keyword(campaign: Campaign, step: int) -> list[str]:
    """By relevance alone, what was tried least often first; it does not look at results."""
    tries = {name: sum(name in e.methods for e in campaign.local()) for name in campaign.left}
    order = sorted(campaign.left, key=lambda name: (tries[name], -campaign.world.relevance[name]))
    return order[: campaign.world.setting.pack]


def at_random(campaign: Campaign, step: int) -> list[str]:
    luck = random.Random(f"random {campaign.world.seed} {step}")
    return luck.sample(campaign.left, min(campaign.world.setting.pack, len(campaign.left)))


ABLATIONS: dict[str, Shower] = {
    f"ours, {switch} off": partial(ours, settings=replace(OURS, **{switch: False}))
    for switch in ("thompson", "scopes", "recency", "crash", "literature", "fatigue")
}
POLICIES: dict[str, Shower] = {
    "ours": ours,
    **ABLATIONS,
    "ours, boldness 1 (Thompson's rule)": partial(ours, settings=replace(OURS, boldness=1.0)),
    "ours, relevance off": partial(ours, settings=replace(OURS, relevance=0.0)),
    "ours, past shuffled (placebo)": partial(ours, placebo=True),
    "UCB, this campaign": partial(ucb, pooled=False, width=1.0),
    "UCB, with the past": partial(ucb, pooled=True, width=1.0),
    "keyword": keyword,
    "random": at_random,
}
REST = [name for name in POLICIES if name not in ABLATIONS or name == "ours, thompson off"]
"""Policies of the settings without the difficulties that the other switches are for."""
WIDTHS = (0.25, 0.5, 1.0, 2.0)


def tuned() -> dict[str, Shower]:
    return {
        f"UCB, pooled={pooled}, width={width}": partial(ucb, pooled=pooled, width=width)
        for pooled in (False, True)
        for width in WIDTHS
    }


def play(seed: int, setting: Setting, policies: dict[str, Shower]) -> dict[str, tuple[float, float, int, int]]:
    """Return each policy's mean regret, final gain, crashes and idle steps in one world."""
    world: World = world_of(setting, seed)
    best = oracle(world)
    found = {}
    for name, show in policies.items():
        campaign = Campaign(world)
        for step in range(setting.steps):
            campaign.step(show(campaign, step))
        regret = sum(b - g for b, g in zip(best, campaign.gains, strict=True)) / setting.steps
        found[name] = (regret, campaign.gains[-1], campaign.crashed, campaign.idle)
    return found


def interval(values: np.ndarray) -> str:
    """Return the mean and its 95 % bootstrap interval over campaigns."""
    luck = np.random.default_rng(0)
    means = values[luck.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="seed of the first campaign")
    parser.add_argument("--setting", choices=["", *SETTINGS], default="", help="only this one")
    parser.add_argument("--tune", action="store_true", help="widths of UCB on other seeds, instead of the table")
    asked = parser.parse_args()
    first = 1_000_000 if asked.tune else asked.first
    policies = tuned() if asked.tune else POLICIES
    for title, setting in SETTINGS.items():
        if asked.setting not in ("", title):
            continue
        begun = time.perf_counter()
        if title != "full" and not asked.tune:
            policies = {name: POLICIES[name] for name in REST}
        job = partial(play, setting=setting, policies=policies)
        with ProcessPoolExecutor(asked.processes) as pool:
            played = list(pool.map(job, range(first, first + asked.campaigns), chunksize=5))
        print(f"\n{title}: {asked.campaigns} campaigns of {setting.steps} steps, {time.perf_counter() - begun:.0f} s\n")
        print("| policy | mean regret | more than ours | gain at the end | crashes | idle steps |")
        print("| --- | --- | --- | --- | --- | --- |")
        against = np.array([one[next(iter(policies))][0] for one in played])
        for name in policies:
            regret, gain, crashes, idle = np.array([one[name] for one in played]).T
            extra = "" if name == next(iter(policies)) else interval(regret - against)
            line = f"| {name} | {interval(regret)} | {extra} | {interval(gain)} |"
            print(f"{line} {crashes.mean():.1f} | {idle.mean():.1f} |", flush=True)


if __name__ == "__main__":
    main()
