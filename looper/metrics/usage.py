"""What sessions cost and how they ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from looper.metrics.intervals import rate
from looper.metrics.outcomes import Outcome


def usage(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return steps, generated tokens and seconds a session, exits, patch rate and machine failures.

    `served` is what the sessions took of servers in all; None for models that are not metered.
    Everything that a clock says is under the key `seconds`, so that runs can be compared without it.
    """
    verdicts, outcomes = outcomes, distinct_sessions(outcomes)
    sessions = len(outcomes)
    return {
        "sessions": sessions,
        "verdicts": len(verdicts),
        "steps": spread([float(o.steps) for o in outcomes]),
        "tokens": spread([float(o.tokens) for o in outcomes]),
        "seconds": {**spread([o.seconds for o in outcomes]), "total": sum(o.seconds for o in outcomes)},
        "exits": dict(sorted(Counter(o.exit for o in outcomes).items())),
        "served": _served(outcomes),
        "patch_rate": _patch_rate(outcomes),
        "intervention_rate": _intervention_rate(outcomes),
        "resolved": sum(o.resolved for o in verdicts),
        "infrastructure": sum(o.infrastructure for o in verdicts),
    }


def _served(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return total tokens and cost, None where the price of any reply is unknown; None without a metered model."""
    if not any(o.metered for o in outcomes):
        return None
    costs = [o.cost for o in outcomes]
    return {
        "prompt_tokens": sum(o.prompt_tokens for o in outcomes),
        "completion_tokens": sum(o.tokens for o in outcomes),
        "cost": None if None in costs else math.fsum(cost for cost in costs if cost is not None),
    }


def _patch_rate(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    if not outcomes:
        return None
    return rate({task: sum(o.patched for o in own) / len(own) for task, own in by_task(outcomes).items()}).model_dump()


def _intervention_rate(outcomes: Sequence[Outcome]) -> float | None:
    """Return the share of supervised steps that were rejected or corrected; None without a supervisor."""
    steps = sum(o.supervised for o in outcomes)
    return sum(o.interventions for o in outcomes) / steps if steps else None


def distinct_sessions(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return one outcome for each session: a session judged in two worlds cost once."""
    found: dict[tuple[str, int, str], Outcome] = {}
    for i, outcome in enumerate(outcomes):
        found.setdefault((outcome.arm, outcome.stage, outcome.session or f"row {i}"), outcome)
    return list(found.values())


def by_task(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Group sessions by the task across worlds, which is what statistics count."""
    tasks: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        tasks.setdefault(outcome.pair, []).append(outcome)
    return tasks


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return median and 90th percentile (linear between ranks); None for no values."""
    return {"median": _quantile(values, 0.5), "p90": _quantile(values, 0.9)}


def _quantile(values: Sequence[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))
