"""The option of the bundled benchmark: which families, how many tasks, and their judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from looper.benchmarks.bugs.draw import draw
from looper.benchmarks.bugs.family import (
    Family,
    conventions_family,
    mix_family,
    natural_family,
    unlearnable_family,
)
from looper.benchmarks.bugs.words import PAIRS
from looper.benchmarks.repair import judge_repair
from looper.errors import ConfigError
from looper.protocols import Box
from looper.records import Task, Verdict

EVALUATION = 1_000_000
"""First index used for evaluation; pretraining draws smaller ones only."""

FRESH = 1_000_000
"""First number of the mix families that pretraining never draws from."""

SEED_STRIDE = 10_000
"""Indexes that one seed has to itself."""

SEEN_FAMILIES = 24
"""Mix families that `seen` cycles through."""

NATURAL_FAMILIES = 24
"""Natural families that `natural` cycles through."""


class FamilyKind(StrEnum):
    """Groups of families."""

    CONVENTIONS = "conventions"
    UNLEARNABLE = "unlearnable"
    NATURAL = "natural"
    SEEN = "seen"
    FRESH = "fresh"


def seen_family(k: int) -> Family:
    """Return a family of the training mix, to be drawn from at indexes that pretraining never used."""
    return mix_family(k % SEEN_FAMILIES, kind="seen")


def fresh_family(k: int) -> Family:
    """Return a family drawn like those of the training mix, but never trained on."""
    return mix_family(FRESH + k % SEEN_FAMILIES, kind="fresh")


_ONE_COPY: dict[FamilyKind, Callable[[int], Family]] = {
    FamilyKind.NATURAL: lambda k: natural_family(k % NATURAL_FAMILIES),
    FamilyKind.SEEN: seen_family,
    FamilyKind.FRESH: fresh_family,
}


@dataclass(frozen=True, kw_only=True)
class Bugs:
    """Small Python repositories with one bug each, drawn by a generator.

    In `conventions` every module exists twice, and one tree is live throughout a world; in `unlearnable` the same
    repositories have their live tree drawn per task; `natural` families follow conventions, and `fresh` families
    draws, that the bundled model's pretraining never saw; `seen` are new draws of families that it knows.
    """

    family: FamilyKind = FamilyKind.CONVENTIONS
    """Primary family."""
    train: int = 40
    """Distinct tasks of the primary family to learn from."""
    held_out: int = 100
    """Distinct tasks of the primary family that are never trained on."""
    probes: list[FamilyKind] = field(default_factory=lambda: [FamilyKind.NATURAL, FamilyKind.SEEN])
    """Families probed beside the primary one."""
    probe_tasks: int = 40
    """Distinct tasks of each probed family."""
    pair: str = "main/backup"
    """Tree names of the two-copy families, one of `words.PAIRS` with a slash between."""

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        for name in ("train", "held_out", "probe_tasks"):
            value = getattr(self, name)
            if value < 0 or value > SEED_STRIDE // 2:
                raise ConfigError(f"bugs: {name}={value} is not between 0 and {SEED_STRIDE // 2} tasks")
        if self.train + self.held_out == 0:
            raise ConfigError("bugs: train=0 and held_out=0 leave no tasks; give one of them a positive number")
        if self.family in self.probes or len(set(self.probes)) < len(self.probes):
            listed = ", ".join(probe.value for probe in self.probes)
            raise ConfigError(
                f"bugs: probes [{listed}] repeat a family (the primary is {self.family.value}); list each once"
            )
        if self.trees not in PAIRS:
            known = ", ".join("/".join(pair) for pair in PAIRS)
            raise ConfigError(f"bugs: unknown tree pair {self.pair!r}; choose one of {known}")

    @property
    def trees(self) -> tuple[str, str]:
        """Names of the two trees."""
        first, _, second = self.pair.partition("/")
        return first, second

    def load(self, seed: int) -> Sequence[Task]:
        """Return the primary family's tasks, then each probed family's.

        The primary family's train tasks come first, then its held-out ones; where a family has worlds, the tasks
        of A and B alternate, so a cut after 2 x `train` tasks divides them.
        """
        tasks = self._tasks(self.family, self.train + self.held_out, seed)
        for probe in self.probes:
            tasks += self._tasks(probe, self.probe_tasks, seed)
        return tasks

    def placebo(self, seed: int) -> Sequence[Task]:
        """Return `unlearnable` tasks with the indexes of the primary family's train tasks, in both worlds."""
        return self._tasks(FamilyKind.UNLEARNABLE, self.train, seed)

    def judge(self, task: Task, box: Box) -> Verdict:
        """Run the hidden tests in a second, fresh box that holds the agent's patch."""
        return judge_repair(task, box)

    def _tasks(self, kind: FamilyKind, count: int, seed: int) -> list[Task]:
        if seed < 0:
            raise ConfigError(f"bugs: seed {seed} is negative; use 0 or more")
        first = EVALUATION + seed * SEED_STRIDE
        if kind in _ONE_COPY:
            return [draw(_ONE_COPY[kind](i), i).task for i in range(first, first + count)]
        family = (conventions_family if kind is FamilyKind.CONVENTIONS else unlearnable_family)(self.trees)
        return [draw(family, i, world=world).task for i in range(first, first + count) for world in ("A", "B")]
