"""How tasks are split into what is worked on and what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from looper.errors import ConfigError
from looper.protocols import Stage
from looper.records import Task


class Order(Enum):
    """Order in which distinct tasks are dealt."""

    first_last = "first_last"
    """The first ones are worked on, the last ones held out."""
    reversed = "reversed"
    """The last ones are worked on, the first ones held out."""
    odd_even = "odd_even"
    """Every other one."""
    random = "random"
    """Drawn with the run's seed."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One stage: some tasks of the primary family are worked on, the rest are held out.

    Tasks of other families than the first are probes: always held out. Tasks that are one another's
    counterparts in two worlds go to the same half.
    """

    train: int = 40
    """Distinct tasks to work on; 0 only evaluates."""
    held_out: int = 100
    """Distinct tasks of the primary family never worked on; 0 takes all the rest."""
    order: Order = Order.first_last
    """How the distinct tasks are dealt."""

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        if self.train < 0 or self.held_out < 0:
            raise ValueError(f"train={self.train} and held_out={self.held_out} must be at least 0")

    def stages(self, tasks: Sequence[Task], seed: int) -> Sequence[Stage]:
        """Return the one stage. Raises ConfigError if there are too few tasks."""
        if not tasks:
            raise ConfigError("the benchmark has no tasks; look at its options with python -m looper --cfg job")
        primary = tasks[0].family
        pairs = list(dict.fromkeys(task.pair_id for task in tasks if task.family == primary))
        wanted = self.train + max(1, self.held_out)
        if len(pairs) < wanted:
            raise ConfigError(
                f"{self.train} train + {self.held_out} held-out tasks asked for, but {primary} has {len(pairs)}; "
                f"lower curriculum.train or curriculum.held_out"
            )
        work, hold = self._deal(pairs, seed)
        return [
            Stage(
                name=primary,
                train=tuple(t for t in tasks if t.family == primary and t.pair_id in work),
                held_out=tuple(t for t in tasks if t.family != primary or t.pair_id in hold),
            )
        ]

    def _deal(self, pairs: list[str], seed: int) -> tuple[set[str], set[str]]:
        pairs = list(pairs)
        if self.order is Order.reversed:
            pairs.reverse()
        elif self.order is Order.random:
            Random(f"curriculum/{seed}").shuffle(pairs)
        elif self.order is Order.odd_even:
            pairs = pairs[0::2] + pairs[1::2]
        rest = pairs[self.train :]
        return set(pairs[: self.train]), set(rest[-self.held_out :] if self.held_out else rest)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Stages in a row, each of one family or of several at once; a family may come again.

    A family's last tasks are held out, and are the same in all its stages; each visit works on tasks of its own.
    Families that no stage works on are probes.
    """

    order: list[str] = field(default_factory=lambda: ["first", "second", "first"])
    """Families in the order of the stages; `first+second` works on both in one stage (joint training)."""
    train: int = 25
    """Distinct tasks of each family to work on in a stage."""
    held_out: int = 40
    """Distinct tasks of each family never worked on."""

    def __post_init__(self) -> None:
        """Refuse what makes no stream."""
        if not self.order or self.train < 1 or self.held_out < 1:
            raise ValueError(
                f"order={list(self.order)}, train={self.train} and held_out={self.held_out} make no stream: name at "
                "least one stage, and give 1 task or more"
            )

    def stages(self, tasks: Sequence[Task], seed: int) -> Sequence[Stage]:
        """Return the stages in order. Raises ConfigError for an unknown family or too few tasks."""
        known = list(dict.fromkeys(task.family for task in tasks))
        pairs = {f: list(dict.fromkeys(t.pair_id for t in tasks if t.family == f)) for f in known}
        visits = Counter(f for name in self.order for f in name.split("+"))
        for family, count in visits.items():
            if family not in pairs:
                raise ConfigError(
                    f"curriculum.order names {family!r}, but the tasks are of: {', '.join(known)}; give "
                    "benchmark=bugs_stream, whose families are first and second, or name these in curriculum.order"
                )
            if len(pairs[family]) < count * self.train + self.held_out:
                raise ConfigError(
                    f"{family} has {len(pairs[family])} tasks; {count} stages of {self.train} and {self.held_out} held "
                    "out need more: lower curriculum.train or curriculum.held_out, or raise benchmark.size"
                )
        probes = tuple(t for t in tasks if t.family not in visits)
        past: Counter[str] = Counter()
        made: list[Stage] = []
        for name in self.order:
            families = name.split("+")
            work = {p for f in families for p in pairs[f][past[f] * self.train : (past[f] + 1) * self.train]}
            hold = {p for f in families for p in pairs[f][-self.held_out :]}
            past.update(families)
            held_out = tuple(t for t in tasks if t.pair_id in hold) + (() if made else probes)
            made.append(Stage(name=name, train=tuple(t for t in tasks if t.pair_id in work), held_out=held_out))
        return made


def dealt(tasks: Sequence[Task], world: str, worlds: Sequence[str]) -> list[Task]:
    """Return a world's tasks; probes that belong to no world are dealt out, so that each is tried once an arm."""
    common: dict[str, list[str]] = {}
    for task in tasks:
        if not task.world and task.family != tasks[0].family:
            common.setdefault(task.family, []).append(task.id)
    here = {name for ids in common.values() for name in ids[worlds.index(world) :: len(worlds)]}
    return [t for t in tasks if t.world in ("", world) and (t.id in here or t.family not in common)]
