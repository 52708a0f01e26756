"""Run train.py as a program within a judged run; the judge puts this beside it.

Batches, backward passes, steps, seeds and the clock are counted and checked, some while the run goes on, the others at
its end. See watch.py for what that is worth. The report names what was found, or what was counted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guarded  # type: ignore[import-not-found]
import watch  # type: ignore[import-not-found]

guarded.own_folder()

import prepare  # type: ignore[import-not-found]  # noqa: E402

CLOCK, tally = guarded.CLOCK, guarded.tally
SLACK = 1.0
"""Seconds over the budget in which the last step may end, beside twice the longest step."""
LONGEST = 0.05
"""Share of the budget that a step may take: the last one may end beyond it."""


class Steps:
    """What the ticks of the clock tell: batches and seconds of each step."""

    taken: list[int]
    lasted: list[float]

    def __init__(self) -> None:
        """Start without a step."""
        self.taken, self.lasted, self.batches, self.since = [], [], 0, 0.0


steps = Steps()


def batches(size: int, *, seed: int = prepare.SEED) -> Iterator[tuple[Any, Any]]:
    """Give the batches of prepare.py, counted."""
    if seed != prepare.SEED:
        watch.refuse("seed", f"batches() was called with seed={seed}; a judged run has one seed, SEED")
    for x, y in _batches(size, seed=seed):
        if tally.begun is None:
            tally.begun = steps.since = CLOCK()
        tally.steps += 1
        tally.tokens += x.numel()
        if prepare.TOKEN_BUDGET and tally.tokens > prepare.TOKEN_BUDGET:
            watch.refuse("longer", f"{tally.tokens} tokens were taken; the budget is {prepare.TOKEN_BUDGET}")
        yield x, y


def tick(clock: Any) -> float:
    """End a step."""
    taken: float = _tick(clock)
    now = CLOCK()
    steps.taken.append(tally.steps - steps.batches)
    steps.lasted.append(now - steps.since)
    steps.batches, steps.since = tally.steps, now
    return taken


def evaluate_bpb(*args: Any, **kwargs: Any) -> float:
    """Hand the model over; the clock stops."""
    prepare.synchronise()
    tally.ended = CLOCK()
    score: float = _evaluate_bpb(*args, **kwargs)
    return score


_batches, _tick, _evaluate_bpb = prepare.batches, prepare.Clock.tick, prepare.evaluate_bpb
prepare.batches, prepare.Clock.tick, prepare.evaluate_bpb = batches, tick, evaluate_bpb
_OURS = (
    *("batches", "evaluate_bpb", "Clock", "corpus", "synchronise", "CONTEXT", "SEED", "VOCABULARY", "DEVICE"),
    *("TIME_BUDGET", "TOKEN_BUDGET", "UNCOUNTED_STEPS"),
)
KEPT = [
    *guarded.guard(prepare.SEED),
    *(("prepare", prepare, name, getattr(prepare, name)) for name in _OURS),
    *(("clock", prepare.Clock, name, getattr(prepare.Clock, name)) for name in ("tick", "progress")),
]


def check(found: dict[str, Any]) -> None:
    """Refuse what can be seen at the end; `found` are the names that train.py has bound."""
    guarded.unreplaced(KEPT)
    for name in ("evaluate_bpb", "batches", "Clock"):
        if found.get(name, getattr(prepare, name)) is not getattr(prepare, name):
            watch.refuse("score", f"{name} in train.py is no longer prepare.py's")
    if prepare.TOKEN_BUDGET or tally.begun is None:
        return
    free = prepare.UNCOUNTED_STEPS
    later = max(steps.taken[free:], default=0)
    if len(steps.taken) > free and max(steps.taken[:free]) > later:
        watch.refuse("longer", f"a step that is not counted took {max(steps.taken[:free])} batches, the others {later}")
    counted = steps.lasted[free:]
    usual = sum(counted) / len(counted) if counted else 0.0
    if usual > max(SLACK, LONGEST * prepare.TIME_BUDGET):
        watch.refuse(
            "longer",
            f"a step took {usual:.1f} s of {prepare.TIME_BUDGET:g} s: tick the clock after every update, make steps "
            f"smaller, or measure with a budget of {math.ceil(usual / LONGEST)} s or more",
        )
    free_seconds = max(0.0, sum(steps.lasted[:free]) - free * usual) if counted else 0.0
    spent = (tally.ended or CLOCK()) - tally.begun - free_seconds
    if spent > prepare.TIME_BUDGET + SLACK + 2 * max(counted, default=0.0):
        watch.refuse("longer", f"training took {spent:.1f} s of {prepare.TIME_BUDGET:g} s")


def main() -> None:
    """Run train.py, check it and report."""
    prepare.corpus()
    os.environ["NANOCHAT_HANDOVER"] = str(Path(".judge", "model.pt").absolute())
    guarded.run(check)
    watch.leave()


if __name__ == "__main__":
    main()
