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
    stream_family,
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

SHARE = 3_000
"""Of these, indexes for the primary family; probes and a placebo of its own draw from the next two shares."""

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
    STREAM = "stream"


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
    draws, that the bundled model's pretraining never saw; `seen` are new draws of families that it knows. `stream`
    holds two families, `first` and `second`, with opposite conventions and a folder that tells them apart.
    """

    family: FamilyKind = FamilyKind.CONVENTIONS
    """Primary family."""
    size: int = 140
    """Distinct tasks of the primary family; the curriculum divides them."""
    probes: list[FamilyKind] = field(default_factory=lambda: [FamilyKind.NATURAL, FamilyKind.SEEN])
    """Families probed beside the primary one, which is not probed twice if it is named here too."""
    probe_tasks: int = 100
    """Distinct tasks of each probed family."""
    pair: str = "north/south"
    """Tree names of the two-copy families, one of `words.PAIRS` with a slash between."""

    def __post_init__(self) -> None:
        """Check the values. Raises ConfigError."""
        for name, least in (("size", 1), ("probe_tasks", 0)):
            value = getattr(self, name)
            if not least <= value <= SHARE:
                raise ConfigError(f"{name}={value} is not between {least} and {SHARE} tasks")
        if len(set(self.probes)) < len(self.probes):
            raise ConfigError(f"probes [{', '.join(self.probes)}] repeat a family; list each once")
        if FamilyKind.STREAM in self.probes:
            raise ConfigError("probes cannot hold stream, which is two families; give benchmark.family=stream")
        if self.trees not in PAIRS:
            known = ", ".join("/".join(pair) for pair in PAIRS)
            raise ConfigError(f"unknown tree pair {self.pair!r}; choose one of {known}")

    @property
    def trees(self) -> tuple[str, str]:
        """Names of the two trees."""
        first, _, second = self.pair.partition("/")
        return first, second

    @property
    def has_placebo(self) -> bool:
        """There are tasks that teach nothing: the negative control's."""
        return True

    def load(self, seed: int) -> Sequence[Task]:
        """Return the primary family's tasks, then each probed family's.

        Where a family has worlds, the tasks of A and B alternate.
        """
        tasks = self._tasks(self.family, self.size, seed)
        for probe in self.probes:
            if probe is not self.family:
                tasks += self._tasks(probe, self.probe_tasks, seed, offset=SHARE)
        return tasks

    def placebo(self, seed: int) -> Sequence[Task]:
        """Return `unlearnable` tasks with the primary family's indexes; the curriculum divides them.

        They are the same in every world: what their sessions happen to lean to then helps in one world as much as it
        hurts in the other. For the primary family `unlearnable` they are other tasks, so that the two arms are
        independent draws.
        """
        own = self.family is FamilyKind.UNLEARNABLE
        if self.family is FamilyKind.STREAM:
            return self._stream(seed, learnable=False, worlds=("A",))
        return self._tasks(FamilyKind.UNLEARNABLE, self.size, seed, offset=2 * SHARE if own else 0, worlds=("A",))

    def judge(self, task: Task, box: Box) -> Verdict:
        """Run the hidden tests in a second, fresh box that holds the agent's patch."""
        return judge_repair(task, box)

    def _tasks(
        self, kind: FamilyKind, count: int, seed: int, *, offset: int = 0, worlds: Sequence[str] = ("A", "B")
    ) -> list[Task]:
        if seed < 0:
            raise ConfigError(f"seed {seed} is negative; use 0 or more")
        first = EVALUATION + seed * SEED_STRIDE + offset
        if kind is FamilyKind.STREAM:
            return self._stream(seed, learnable=True)
        if kind in _ONE_COPY:
            return [draw(_ONE_COPY[kind](i), i).task for i in range(first, first + count)]
        family = (conventions_family if kind is FamilyKind.CONVENTIONS else unlearnable_family)(self.trees)
        return [draw(family, i, world=world).task for i in range(first, first + count) for world in worlds]

    def _stream(self, seed: int, *, learnable: bool, worlds: Sequence[str] = ("A", "B")) -> list[Task]:
        """Return `size` tasks of each marked family in each world."""
        first = EVALUATION + seed * SEED_STRIDE
        families = [stream_family(self.trees, part, learnable=learnable) for part in (0, 1)]
        indexes = range(first, first + self.size)
        return [draw(family, i, world=world).task for family in families for i in indexes for world in worlds]
