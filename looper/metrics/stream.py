"""A stream of stages: how well each family is held after every stage, and what a stage cost the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from looper.metrics.intervals import rate
from looper.metrics.outcomes import Outcome, values
from looper.metrics.paired import compare


def columns(stages: Sequence[str]) -> list[int]:
    """Return for each stage, from 1, the first stage with the same held-out tasks: a family may come again."""
    return [stages.index(name) + 1 for name in stages]


def stream(probes: Sequence[Outcome], stages: Sequence[str], *, base: str, adapted: str) -> dict[str, Any]:
    """Return for every family of the stages its rate after each stage, and the paired change by that stage.

    `kept` is the change from the family's own first stage to the stage after it: negative is forgetting.
    """
    found: dict[str, Any] = {}
    for family in dict.fromkeys(part for name in stages for part in name.split("+")):
        after = [
            values(o for o in probes if o.family == family and o.stage == i and o.arm == (adapted if i else base))
            for i in range(len(stages) + 1)
        ]
        rows = []
        for i, now in enumerate(after):
            before = after[i - 1] if i else {}
            both = any(now[task] is not None and before.get(task) is not None for task in now)
            known = any(value is not None for value in now.values())
            change = compare(now, before).model_dump() if both else None
            rows.append({"after": i, "rate": rate(now).model_dump() if known else None, "change": change})
        own = next(i for i, name in enumerate(stages, 1) if family in name.split("+"))
        kept = rows[own + 1]["change"] if own < len(stages) else None
        found[family] = {"stages": rows, "kept": kept}
    return found
