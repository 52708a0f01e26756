"""Finished campaigns become the metrics of a run: arms, comparisons, costs, and one sentence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from looper.campaigns.keeping import critical
from looper.campaigns.options import ArmName, Campaign
from looper.campaigns.trials import Fate, Played
from looper.metrics.campaigns import Gains, compare_gains, interval, spread_at

KIND = "campaign"
"""Marks the metrics of campaigns; those of other runs have no kind."""
AGAINST = {
    ArmName.memory: (ArmName.stateful, ArmName.shuffled, ArmName.stateless, ArmName.random, ArmName.tpe),
    ArmName.stateful: (ArmName.stateless, ArmName.random, ArmName.tpe),
    ArmName.stateless: (ArmName.random, ArmName.tpe),
    ArmName.tpe: (ArmName.random,),
}
"""Differences that are reported; the first one there is, is the headline."""


def summarise(played: Sequence[Played], earlier: Sequence[Played], options: Campaign) -> dict[str, Any]:
    """Return the metrics; what a clock says stands under keys that end in `seconds` or under `overhead`."""
    arms = {arm.value: [one for one in played if one.arm == arm.value] for arm in options.arms}
    comparisons = [
        {"a": a.value, "b": b.value, **compare_gains(gains(arms[a.value]), gains(arms[b.value]))}
        for a, others in AGAINST.items()
        for b in others
        if a.value in arms and b.value in arms
    ]
    rows = {name: _arm(campaigns, options) for name, campaigns in arms.items()}
    for name in ("memory", "shuffled"):
        if name in rows:
            rows[name]["earlier"] = _costs(earlier)
    everything = [*played, *earlier]
    metrics = {
        "kind": KIND,
        "experiments": options.experiments,
        "replicates": options.replicates,
        "arms": rows,
        "comparisons": comparisons,
        "earlier": [_campaign(one) for one in earlier],
        "campaigns": [_campaign(one) for one in played],
        "costs": _costs(everything),
        "infrastructure": {"total": sum(one.failed for one in everything)},
    }
    return {**metrics, "verdict": sentence(metrics, options.gate)}


def gains(campaigns: Sequence[Played]) -> Gains:
    """Return the final gains by replicate."""
    return {one.replicate: one.gain for one in campaigns}


def _arm(campaigns: Sequence[Played], options: Campaign) -> dict[str, Any]:
    curves = [[one.best_at(k) for k in range(options.experiments + 1)] for one in campaigns]
    fates = Counter(trial.fate.value for one in campaigns for trial in one.trials)
    best = [one.best_at(options.experiments) for one in campaigns]
    return {
        "gain": interval([one.gain for one in campaigns]),
        "failed_finals": sum(score is None for one in campaigns for score in one.finals.values()),
        "finals": sum(len(one.finals) for one in campaigns),
        "best_at_k": {"low": min(best), "median": median(best), "high": max(best)},
        "curve": spread_at(curves),
        "beyond_noise": sum(beyond(one) > critical(options.gate, one.freedom) for one in campaigns),
        "campaigns": len(campaigns),
        "fates": {fate.value: fates[fate.value] for fate in Fate if fates[fate.value]},
        "costs": _costs(campaigns),
    }


def beyond(one: Played) -> float:
    """Return a campaign's final gain in standard errors of the noise that its replicates measured."""
    return one.gain / (one.sigma * math.sqrt(2.0 / len(one.finals)))


def _costs(campaigns: Sequence[Played]) -> dict[str, Any]:
    trials = [trial for one in campaigns for trial in one.trials]
    told = [trial for trial in trials if trial.prompt_tokens is not None]
    train, whole = (sum(getattr(one, name) for one in campaigns) for name in ("train_seconds", "seconds"))
    priced = told and all(trial.cost is not None for trial in told)
    return {
        "campaigns": len(campaigns),
        "trials": len(trials),
        "runs": sum(one.runs for one in campaigns),
        "train_seconds": train,
        "seconds": whole,
        "overhead": 1.0 - train / whole if whole else 0.0,
        "prompt_tokens": sum(trial.prompt_tokens or 0 for trial in told) if told else None,
        "completion_tokens": sum(trial.completion_tokens or 0 for trial in told) if told else None,
        "cost": sum(trial.cost or 0.0 for trial in told) if priced else None,
    }


def _campaign(one: Played) -> dict[str, Any]:
    kept = [trial for trial in one.trials if trial.fate is Fate.KEEP]
    baseline = fmean(one.baseline.values())
    return {
        "name": one.name,
        "arm": one.arm,
        "replicate": one.replicate,
        "seed": one.seed,
        "scope": one.scope,
        "baseline": baseline,
        "first": next(iter(one.baseline.values())),
        "sigma": one.sigma,
        "freedom": one.freedom,
        "trials": len(one.trials),
        "kept": [trial.description for trial in kept],
        "best": one.best_at(len(one.trials)),
        "gain": one.gain if one.finals else None,
        "beyond": beyond(one) if one.finals else None,
        "stopped": one.stopped,
        "best_experiment": kept[-1].experiment if kept else "",
        "memory": one.memory,
        "earlier": list(one.earlier),
        "costs": _costs([one]),
    }


def sentence(metrics: Mapping[str, Any], gate: float) -> str:
    """Return what the run shows in one sentence; `gate` is the one that gains had to pass."""
    if metrics["comparisons"]:
        first = metrics["comparisons"][0]
        told = difference_text(first)
        return f"After {metrics['experiments']} experiments, {first['a']} against {first['b']}: {told}"
    (name, arm), *_ = metrics["arms"].items()
    if arm["failed_finals"] and arm["failed_finals"] == arm["finals"]:
        return f"{name}: no final run of the best program got to a score, so that nothing can be said of its gain."
    gain, noise = arm["gain"]["estimate"], arm["beyond_noise"]
    found = "this is" if noise else "this is not"
    if arm["campaigns"] > 1:
        found = f"in {noise} of {arm['campaigns']} campaigns this is"
    return (
        f"{name}: on fresh seeds the best program gains {gain:+.4f} bits per byte on the unchanged one; {found} beyond "
        f"the noise (campaign.gate={gate:g})."
    )


def difference_text(row: Mapping[str, Any]) -> str:
    """Return a difference in words."""
    text = f"{row['estimate']:+.4f} bits per byte of gain"
    if row["low"] is None:
        return f"{text} in one replicate, which says nothing of the next; give campaign.replicates=5 or more."
    text += (
        f" [{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p_value']:.4f}, {row['n']} replicates: {row['verdict']}"
    )
    if row["verdict"] != "inconclusive":
        return f"{text}."
    needed = row["replicates_needed"]
    found = f"about {needed} replicates would decide" if needed else "no number of replicates in reach would decide"
    return f"{text}; {found}."
