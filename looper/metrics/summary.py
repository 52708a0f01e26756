"""The summary of a run: everything that metrics.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from looper.errors import LooperError
from looper.metrics.conduct import conduct
from looper.metrics.continual import measure
from looper.metrics.intervals import rate
from looper.metrics.outcomes import TRAIN, Outcome, check_same_worlds, is_work, values
from looper.metrics.paired import compare
from looper.metrics.stream import columns, stream
from looper.metrics.usage import distinct_sessions, usage
from looper.metrics.verdict import caveats, finding, sentence
from looper.metrics.wording import label_of

BASE, ADAPTED, PLACEBO = "base", "adapted", "placebo"
SEEN = "seen"


def summarise(
    outcomes: Sequence[Outcome],
    *,
    primary: str,
    learning: Mapping[str, Any] | None = None,
    stages: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of metrics.json: JSON-able, deterministic, times only under `seconds*` keys.

    Rates and differences are of the arm's last stage. A comparison whose arm is absent is None, a rate whose arm is
    absent has no key: never 0. `learning` (examples, unique tasks, losses, ...) is passed through. `stages` names the
    families of each stage, where there are several.

    Raises LooperError if the primary family was not probed, or arms worked on different tasks or worlds.
    """
    probes = [o for o in outcomes if not is_work(o.arm)]
    names = list(dict.fromkeys(o.family for o in probes))
    if primary not in names:
        raise LooperError(
            f"no held-out session of the primary family {primary!r}; probed: {', '.join(names) or 'none'}. "
            "Let the curriculum hold out tasks of it"
        )
    final = _final(probes)
    families = {name: _family(name, [o for o in final if o.family == name]) for name in names}
    head = families[primary]
    matrix = _matrix([o for o in probes if o.on >= 1], columns(stages))
    metrics: dict[str, Any] = {
        "primary": primary,
        "n_worlds": head["n_worlds"],
        "resolve_rate": head["resolve_rate"],
        "forward_transfer": head["forward_transfer"],
        "transfer_over_placebo": head["transfer_over_placebo"],
        "families": families,
        "forgetting": _forgetting([o for o in final if o.family == SEEN]),
        "matrix": matrix,
        "continual": measure(matrix).model_dump(),
        "stages": list(stages),
        "stream": stream(probes, stages, base=BASE, adapted=ADAPTED) if len(stages) > 1 else {},
        "train": _train([o for o in outcomes if o.arm == TRAIN]),
        "usage": {arm: usage([o for o in outcomes if o.arm == arm]) for arm in _arms(outcomes)},
        "conduct": {arm: conduct([o for o in probes if o.arm == arm]) for arm in _arms(probes)},
        "leakage": {name: _leakage([o for o in probes if o.family == name]) for name in names},
        "infrastructure": _infrastructure(outcomes),
        "held_out_trained_on": _trained_on(outcomes, primary),
        "learning": dict(learning or {}),
        "tasks": {arm: values([o for o in final if o.family == primary and o.arm == arm]) for arm in _arms(final)},
    }
    metrics["verdict"] = {
        "finding": str(finding(metrics)),
        "sentence": sentence(metrics),
        "caveats": caveats(metrics),
    }
    return metrics


def _arms(outcomes: Sequence[Outcome]) -> list[str]:
    order = {BASE: 0, ADAPTED: 1, PLACEBO: 2, TRAIN: 9}
    return sorted({o.arm for o in outcomes}, key=lambda arm: (order.get(arm, 5), arm))


def _final(probes: Sequence[Outcome]) -> list[Outcome]:
    """Return the probes after each arm's last stage."""
    last: dict[str, int] = {}
    for outcome in probes:
        last[outcome.arm] = max(last.get(outcome.arm, 0), outcome.stage)
    return [o for o in probes if o.stage == last[o.arm]]


def _family(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    by_arm = {arm: [o for o in outcomes if o.arm == arm] for arm in _arms(outcomes)}
    rates = {}
    for arm, rows in by_arm.items():
        measured = values(rows)
        if any(value is not None for value in measured.values()):
            rates[arm] = rate(measured).model_dump()
    return {
        "label": label_of(name),
        "n_worlds": len({o.world for o in outcomes}),
        "resolve_rate": rates,
        "forward_transfer": _difference(by_arm.get(ADAPTED), by_arm.get(BASE)),
        "transfer_over_placebo": _difference(by_arm.get(ADAPTED), by_arm.get(PLACEBO)),
    }


def _difference(first: Sequence[Outcome] | None, second: Sequence[Outcome] | None) -> dict[str, Any] | None:
    if not first or not second:
        return None
    check_same_worlds(first, second)
    a, b = values(first), values(second)
    if a.keys() == b.keys() and not any(a[task] is not None and b[task] is not None for task in a):
        return None  # the machine failed on every task: unknown, and counted under `infrastructure`
    return compare(a, b).model_dump()


def _forgetting(seen: Sequence[Outcome]) -> dict[str, Any] | None:
    """Return the drop from base to adapted on the families of pretraining; positive is forgetting."""
    return _difference([o for o in seen if o.arm == BASE], [o for o in seen if o.arm == ADAPTED])


def _matrix(probes: Sequence[Outcome], columns: Sequence[int]) -> list[list[float | None]]:
    rows = [o for o in probes if o.arm in (BASE, ADAPTED)]
    count = max([1, len(columns), *(max(o.stage, o.on) for o in rows)])
    shown = columns or range(1, count + 1)
    return [[_cell(rows, i, j) for j in shown] for i in range(count + 1)]


def _cell(rows: Sequence[Outcome], after: int, on: int) -> float | None:
    arm = BASE if after == 0 else ADAPTED
    cell = values(o for o in rows if o.arm == arm and o.stage == after and o.on == on)
    known = [value for value in cell.values() if value is not None]
    return sum(known) / len(known) if known else None


def _train(rows: Sequence[Outcome]) -> dict[str, Any] | None:
    measured = values(rows)
    if not any(value is not None for value in measured.values()):
        return None
    return {
        "resolve_rate": rate(measured).model_dump(),
        "sessions": len(distinct_sessions(rows)),
        "verdicts": len(rows),
        "worlds": len({o.world for o in rows}),
        "resolved_verdicts": sum(o.resolved for o in rows),
        "unique_resolved": len({o.pair for o in rows if o.resolved}),
    }


def _leakage(rows: Sequence[Outcome]) -> dict[str, Any] | None:
    shares = list({o.task: o.leakage for o in rows if o.leakage is not None}.values())
    if not shares:
        return None
    return {
        "mean": sum(shares) / len(shares),
        "max": max(shares),
        "share_over_half": sum(share >= 0.5 for share in shares) / len(shares),
        "n": len(shares),
    }


def _infrastructure(outcomes: Sequence[Outcome]) -> dict[str, int]:
    counts = {arm: sum(o.infrastructure for o in outcomes if o.arm == arm) for arm in _arms(outcomes)}
    return {"total": sum(counts.values()), **counts}


def _trained_on(outcomes: Sequence[Outcome], primary: str) -> int:
    """Count held-out tasks of the primary family that are train tasks too; 0 unless a split is broken."""
    trained = {(o.world, o.pair) for o in outcomes if is_work(o.arm)}
    held_out = {(o.world, o.pair) for o in outcomes if not is_work(o.arm) and o.family == primary}
    return len(trained & held_out)
