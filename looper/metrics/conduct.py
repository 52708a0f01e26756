"""How the agent conducts itself at the probes after each stage of learning: what training breaks first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from looper.metrics.intervals import rate
from looper.metrics.outcomes import Outcome
from looper.metrics.usage import by_task, distinct_sessions, spread
from looper.proportions import wilson


def conduct(probes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a row for each stage that an arm was probed after, 0 being before any learning.

    `premature_done` is the rate of tasks given up as done with an empty patch, `parse_error` the share of all steps
    whose reply was no action; both None where nothing was measured. Sessions that the machine failed are left out.
    """
    found = []
    for stage in sorted({o.stage for o in probes}):
        rows = distinct_sessions([o for o in probes if o.stage == stage and not o.infrastructure])
        found.append(
            {
                "stage": stage,
                "sessions": len(rows),
                "premature_done": _premature(rows),
                "parse_error": _parse_error(rows),
                "steps": spread([float(o.steps) for o in rows]),
            }
        )
    return found


def _premature(rows: Sequence[Outcome]) -> dict[str, Any] | None:
    if not rows:
        return None
    tasks = by_task(rows)
    return rate({task: sum(o.premature for o in own) / len(own) for task, own in tasks.items()}).model_dump()


def _parse_error(rows: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return the share of steps with Wilson's interval at the effective count.

    Steps of one task are alike, so the variance is that of a ratio of sums over tasks (Cochran 1977, 6.3). Where no
    step or every step is malformed it is 0, and each task counts once.
    """
    tasks = [(sum(o.malformed for o in own), sum(o.steps for o in own)) for own in by_task(rows).values()]
    errors, steps = (sum(column) for column in zip(*tasks, strict=True)) if tasks else (0, 0)
    if not steps:
        return None
    share = errors / steps
    count = len(tasks)
    spread_of_sums = sum((bad - share * all_) ** 2 for bad, all_ in tasks) * count / max(1, count - 1)
    alone = share * (1 - share) * steps**2
    effective = min(max(alone / spread_of_sums, 1.0), float(steps)) if alone and spread_of_sums else float(count)
    low, high = wilson(share * effective, effective)
    return {"estimate": share, "low": min(low, share), "high": max(high, share), "n": steps}
