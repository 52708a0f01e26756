"""Outcomes: one row for every judged session, and how sessions become values of distinct tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from looper.actions import FormatError
from looper.errors import LooperError
from looper.records import Episode, Exit, Intervention

TRAIN = "train"
"""Arm of the sessions that the agent learns from; `placebo train` is the placebo's. All others are probes."""


def is_work(arm: str) -> bool:
    """Whether an arm's sessions are worked on, not probes on held-out tasks."""
    return arm.split(" ")[-1] == TRAIN


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one session says, without its text."""

    arm: str
    """base, adapted, placebo, any further probed arm, or train."""
    stage: int
    """Stages learned before the session; 0 is before any learning."""
    on: int = 1
    """Stage that the task belongs to, from 1; the matrix's column."""
    family: str
    world: str = ""
    pair: str
    """Identity of the task across worlds; statistics count distinct pairs."""
    task: str
    session: str = ""
    """Identity of the session: worlds that look the same to the agent share one. Empty is one of its own."""
    resolved: bool
    patched: bool
    infrastructure: bool
    """Failed for the machine's reasons: excluded from rates, and counted."""
    steps: int
    tokens: int
    """Tokens that the agent generated."""
    seconds: float
    exit: str
    supervised: int = 0
    """Steps that a supervisor judged."""
    interventions: int = 0
    """Steps among them that it rejected or corrected."""
    malformed: int = 0
    """Steps whose reply was no action."""
    prompt_tokens: int = 0
    """Tokens that the agent was shown, added up over its steps."""
    metered: bool = False
    """Whether a server counted tokens in the session."""
    cost: float | None = 0.0
    """Price of the session's replies; None if that of any is unknown."""
    leakage: float | None = None
    """Share of the gold patch's lines found in the issue; None without a gold patch."""

    @property
    def premature(self) -> bool:
        """Whether the agent said that it was done without having changed anything."""
        return self.exit == Exit.DONE and not self.patched

    @classmethod
    def of(cls, episode: Episode, *, arm: str, stage: int, on: int = 1, leakage: float | None = None) -> Outcome:
        """Return the row of an episode."""
        steps = episode.trajectory.steps
        costs = [step.cost for step in steps]
        return cls(
            arm=arm,
            stage=stage,
            on=on,
            family=episode.family,
            world=episode.world,
            pair=episode.pair or episode.task,
            task=episode.task,
            session=episode.trajectory.digest,
            resolved=episode.resolved,
            patched=bool(episode.trajectory.patch.strip()),
            infrastructure=episode.infrastructure,
            steps=len(steps),
            tokens=episode.trajectory.tokens,
            seconds=episode.trajectory.seconds,
            exit=str(episode.trajectory.exit),
            supervised=sum(bool(step.intervention) for step in steps),
            interventions=sum(step.intervention in (Intervention.REJECTED, Intervention.CORRECTED) for step in steps),
            malformed=sum(step.action == FormatError.kind for step in steps),
            prompt_tokens=sum(step.prompt_tokens for step in steps),
            metered=any(step.metered for step in steps),
            cost=None if None in costs else sum(cost for cost in costs if cost is not None),
            leakage=leakage,
        )


def values(outcomes: Iterable[Outcome]) -> dict[str, float | None]:
    """Return each distinct task's value: the mean over its worlds of the mean over the world's sessions.

    Sessions that the machine failed are left out. A task with a world that has no other session is None: to
    average the worlds that are left would tip a counterbalanced design.
    """
    worlds: dict[str, dict[str, list[float]]] = {}
    for outcome in outcomes:
        sessions = worlds.setdefault(outcome.pair, {}).setdefault(outcome.world, [])
        if not outcome.infrastructure:
            sessions.append(float(outcome.resolved))
    result: dict[str, float | None] = {}
    for pair, by_world in worlds.items():
        if all(by_world.values()):
            means = [sum(sessions) / len(sessions) for sessions in by_world.values()]
            result[pair] = sum(means) / len(means)
        else:
            result[pair] = None
    return result


def check_same_worlds(first: Sequence[Outcome], second: Sequence[Outcome]) -> None:
    """Raise LooperError if a task that both lists hold was run in other worlds in one than in the other."""
    worlds_first, worlds_second = _worlds(first), _worlds(second)
    for pair in worlds_first.keys() & worlds_second.keys():
        if worlds_first[pair] != worlds_second[pair]:
            raise LooperError(
                f"task {pair} was run in worlds {sorted(worlds_first[pair])} in arm {first[0].arm}, but in "
                f"{sorted(worlds_second[pair])} in arm {second[0].arm}; both arms must run in the same worlds"
            )


def _worlds(outcomes: Sequence[Outcome]) -> dict[str, set[str]]:
    worlds: dict[str, set[str]] = {}
    for outcome in outcomes:
        worlds.setdefault(outcome.pair, set()).add(outcome.world)
    return worlds
