"""Adaptive rank: every stage gets an adapter as wide as it needs; the sum of the ranks stays within a budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, TrainingError
from looper.learning.adapters import adapter_at
from looper.learning.consolidation import consolidate, rank_of
from looper.learning.fitting import Fitting, fitted, owned, replaced
from looper.protocols import Form, Lab, Trainer
from looper.records import Example, Skill, digest_of


@dataclass(frozen=True, kw_only=True)
class AdaptiveRank(Fitting):
    """Probes some ranks, and trains an adapter of the lowest that is nearly as good as the best on frozen past ones.

    The rank is the knee of the held-out loss after a training on part of the tasks: the lowest whose gain over no new
    adapter is at least 1 - tolerance of the best one's. Where the past adapters and the new one would exceed the
    budget, the past ones are first merged into one adapter of the rank that is left (the best approximation of their
    sum), so that the new one learns on top of what remains. Every adapter has a random start of its own.
    """

    ranks: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    """Ranks to probe; with a single one there is nothing to probe. The trainer's alpha / rank is kept."""
    tolerance: float = 0.05
    """Share of the best rank's gain that a lower rank may lack."""
    budget: int = 64
    """Most ranks of all adapters together."""
    energy: float = 0.9999
    """Share of the squared singular values that a merge keeps, if the budget allows; the rest frees ranks."""
    probe_epochs: int = 0
    """Passes over the examples in a probe; 0 is as many as in the training proper, and five probes then cost nearly
    four times the training. Fewer favour high ranks, which learn in fewer steps (on the bundled model, one epoch chose
    the highest of all), and more favour ranks too low for the training that follows."""
    probe_held_out: float = 0.25
    """Share of the stage's tasks whose loss compares the ranks; in the training proper they are trained on."""
    probe_min_tasks: int = 8
    """Distinct tasks below which nothing is probed and the highest rank is taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ranks or min(self.ranks) < 1 or len(set(self.ranks)) < len(self.ranks):
            raise ConfigError(f"strategy.ranks={list(self.ranks)} has to list different ranks of 1 or more")
        if self.budget <= max(self.ranks):
            raise ConfigError(
                f"strategy.budget={self.budget} leaves no rank beside a new adapter of {max(self.ranks)}; choose "
                f"{max(self.ranks) + 1} or more, or lower strategy.ranks"
            )
        if not (0.0 <= self.tolerance < 1.0 and 0.0 < self.energy <= 1.0 and 0.0 < self.probe_held_out < 1.0):
            raise ConfigError(
                f"strategy.tolerance={self.tolerance}, energy={self.energy} and probe_held_out={self.probe_held_out} "
                "are shares between 0 and 1"
            )
        if self.probe_epochs < 0 or self.probe_min_tasks < 2:
            raise ConfigError(
                f"strategy.probe_epochs={self.probe_epochs} has to be 0 or more, and "
                f"strategy.probe_min_tasks={self.probe_min_tasks} 2 or more"
            )

    def gives(self, stages: int) -> Form:
        """Every stage adds an adapter."""
        return Form.stack if stages > 1 else Form.single

    def suits(self, trainer: Trainer) -> None:
        """Raise TrainingError for a trainer without a rank, or where a rank's alpha would be no whole number."""
        for rank in self.ranks:
            ranked(trainer, rank)

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with one more adapter, the past ones merged if the budget asks for it.

        Raises NothingToLearn for too few tasks, TrainingError for an adapter of another base model.
        """
        self.preflight(examples, lab)
        past, adapters = owned(skill, lab), list(skill.adapters)
        rank = self._rank(past, examples, lab)
        if past and sum(map(rank_of, past)) + rank > self.budget:
            out = lab.out("merged")
            done = consolidate(past, out, limit=self.budget - rank, energy=self.energy)
            lab.note({"merged": list(done.ranks), "merged_rank": done.rank, "merge_error": done.error})
            past, adapters = [out], [adapter_at(out, lab.model_id)]
        new = fitted(lab, examples, start=None, under=past, trainer=ranked(lab.trainer, rank), step=len(lab.past))
        lab.note({"rank": rank, "total_rank": sum(map(rank_of, past)) + rank, "adapter_count": len(past) + 1})
        return replaced(skill, *adapters, new)

    def _rank(self, past: Sequence[Path], examples: Sequence[Example], lab: Lab) -> int:
        """Return the rank for this stage, and note the losses that it was chosen by."""
        tasks = {example.task for example in examples}
        if len(self.ranks) == 1 or len(tasks) < self.probe_min_tasks:
            return max(self.ranks)
        train, held = split(examples, self.probe_held_out, lab.seed)
        baseline = _mean(lab.trainer.losses(lab.model_path, held, past))
        epochs = {"epochs": self.probe_epochs} if self.probe_epochs else {}
        losses: dict[int, float] = {}
        for rank in sorted(self.ranks):
            trainer = ranked(lab.trainer, rank, held_out=0.0, **epochs)
            seed = lab.seed + len(lab.past)  # as in the training proper
            fit = trainer.fit(lab.model_path, train, start=None, out=lab.out(f"probe-{rank}"), seed=seed, under=past)
            losses[rank] = _mean(lab.trainer.losses(lab.model_path, held, [*past, fit.adapter]))
        lab.note({"probe_baseline": baseline, "probe_losses": {str(rank): loss for rank, loss in losses.items()}})
        return knee(losses, baseline, self.tolerance)


def knee(losses: Mapping[int, float], baseline: float, tolerance: float) -> int:
    """Return the lowest rank whose gain over the baseline is at least 1 - tolerance of the best one's.

    The lowest of all if none gains anything.
    """
    best = baseline - min(losses.values())
    if best <= 0.0:
        return min(losses)
    return min(rank for rank, loss in losses.items() if baseline - loss >= (1.0 - tolerance) * best)


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Hold out all examples of a share of the tasks (one at least, not all), drawn with the seed."""
    tasks = sorted({e.task for e in examples}, key=lambda task: digest_of(["probe", seed, task]))
    held = set(tasks[: min(len(tasks) - 1, max(1, round(share * len(tasks))))])
    return [e for e in examples if e.task not in held], [e for e in examples if e.task in held]


def ranked(trainer: Trainer, rank: int, **settings: Any) -> Trainer:
    """Return the trainer with another rank and the same alpha / rank, and other settings where it has them.

    Raises TrainingError for a trainer without a rank, or an alpha that would be no whole number.
    """
    given: Any = trainer
    names = {f.name for f in dataclasses.fields(given)}
    if not {"rank", "alpha"} <= names:
        raise TrainingError(f"{type(trainer).__name__} has no rank and alpha to set; choose trainer=torch")
    alpha, rest = divmod(given.alpha * rank, given.rank)
    if rest:
        raise TrainingError(
            f"rank {rank} at trainer.alpha={given.alpha} and trainer.rank={given.rank} gives no whole alpha; choose "
            "trainer.alpha as a multiple of trainer.rank, or other strategy.ranks"
        )
    known = {name: value for name, value in settings.items() if name in names}
    changed: Trainer = dataclasses.replace(given, rank=rank, alpha=alpha, **known)
    return changed


def _mean(losses: Sequence[float]) -> float:
    """Return the mean over the examples that the model can take; the others have none (NaN)."""
    found = [loss for loss in losses if not math.isnan(loss)]
    return sum(found) / len(found)
