"""What strategies that train an adapter share: enough tasks, an adapter of the right base, one fit, its facts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, NothingToLearn, TrainingError
from looper.learning.adapters import adapter_at
from looper.protocols import Ability, Fit, Form, Lab, Objective, Penalty, Trainer
from looper.records import Adapter, Example, Skill

LOG = logging.getLogger(__name__)


class Trains:
    """A strategy that trains adapters, and so needs a model whose weights are here."""

    @property
    def learns(self) -> bool:
        """An adapter is trained."""
        return True

    @property
    def imitates(self) -> bool:
        """Most do as their examples do."""
        return True

    def asks(self, stages: int) -> frozenset[Ability]:
        """Most need the cross-entropy alone."""
        return frozenset()

    def gives(self, stages: int) -> Form:
        """Return what a model has to run after so many stages; most go on with one adapter."""
        return Form.single

    def suits(self, trainer: Trainer) -> None:
        """Raise TrainingError for a trainer whose settings the strategy cannot use; most take any."""


@dataclass(frozen=True, kw_only=True)
class Fitting(Trains):
    """A strategy that trains an adapter, and says when there is too little to train on."""

    warn_under: int = 30
    """Distinct tasks below which a warning is logged: a measured effect of so few is likely to be noise."""
    refuse_under: int = 1
    """Distinct tasks below which nothing is trained and an error is raised."""

    def __post_init__(self) -> None:
        if self.refuse_under < 1:
            raise ConfigError(f"strategy.refuse_under={self.refuse_under} is not positive; choose 1 or more")

    def warning(self, examples: Sequence[Example]) -> str:
        """Return what is to be said of the number of examples; '' if there are enough."""
        tasks = len({example.task for example in examples})
        if tasks >= self.warn_under:
            return ""
        return f"{tasks} distinct tasks to learn from, fewer than strategy.warn_under={self.warn_under}: expect noise"

    def preflight(self, examples: Sequence[Example], lab: Lab) -> None:
        """Raise NothingToLearn for too few tasks; log and note a warning for few."""
        tasks = len({example.task for example in examples})
        if tasks < self.refuse_under:
            raise NothingToLearn(
                f"{tasks} tasks with usable examples, strategy.refuse_under={self.refuse_under}; raise attempts, work "
                "on more tasks, or give strategy=none (or, where the data option has it, data.only_resolved=false)"
            )
        if text := self.warning(examples):
            LOG.warning(text)
            lab.note({"warning": text})


def owned(skill: Skill, lab: Lab, way_out: str = "start a new run, or choose the model it belongs to") -> list[Path]:
    """Return the folders of a skill's adapters, oldest first.

    Raises TrainingError for an adapter of another base model, with the way out that the strategy offers.
    """
    for adapter in skill.adapters:
        if adapter.base != lab.model_id:
            raise TrainingError(
                f"adapter {adapter.path} belongs to {adapter.base}, the model is {lab.model_id}; {way_out}"
            )
    return [Path(adapter.path) for adapter in skill.adapters]


def fitted(
    lab: Lab,
    examples: Sequence[Example],
    *,
    start: Path | None,
    under: Sequence[Path] = (),
    penalty: Penalty | None = None,
    objective: Objective | None = None,
    trainer: Trainer | None = None,
    step: int = 0,
) -> Adapter:
    """Train an adapter into the lab's folder `adapter`, note what the training did, and return its record.

    `trainer` is one to use in place of the lab's. `step` sets the random streams of several adapters apart: those that
    are stacked must not begin with the same A, or all would read the same directions of their layers' inputs.
    """
    fit = (trainer or lab.trainer).fit(
        lab.model_path,
        examples,
        start=start,
        out=lab.out("adapter"),
        seed=lab.seed + step,
        under=under,
        penalty=penalty,
        objective=objective,
    )
    lab.note(facts(fit))
    return adapter_at(fit.adapter, lab.model_id)


def facts(fit: Fit) -> Mapping[str, Any]:
    """Return what the report says of a training."""
    return {
        "train_loss": fit.train_loss,
        "held_out_loss": fit.held_out_loss,
        "steps": fit.steps,
        "history": list(fit.history),
        "seconds": fit.seconds,
    }


def learned_from(examples: Sequence[Example]) -> Mapping[str, int]:
    """Return how much was learned from, for strategies that do not learn from the examples they are given."""
    return {"examples": len(examples), "tasks": len({example.task for example in examples})}


def replaced(skill: Skill, *adapters: Adapter) -> Skill:
    """Return the skill with other adapters."""
    return skill.model_copy(update={"adapters": adapters})
