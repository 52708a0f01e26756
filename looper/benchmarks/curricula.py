"""How tasks are split into what is worked on and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
