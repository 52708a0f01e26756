"""One fit that goes on from a skill's last adapter, into a folder of its own: what strategies of many fits repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from looper.errors import ConfigError, TrainingError
from looper.learning.adapters import adapter_at
from looper.learning.fitting import owned, replaced
from looper.protocols import Fit, Lab, Objective, Trainer
from looper.records import Example, Skill, digest_of


def continued(
    skill: Skill,
    examples: Sequence[Example],
    lab: Lab,
    *,
    objective: Objective | None = None,
    trainer: Trainer | None = None,
    name: str = "adapter",
    step: int = 0,
) -> tuple[Skill, Fit]:
    """Return the skill with its last adapter trained on (a new one if it has none), and what the training did.

    `name` and what is learned name the fit's folder in the lab: the sessions that a strategy makes or chooses itself
    are not in the lab's own address. `trainer` is one to use in place of the lab's. `step` sets the random streams of
    several fits apart. Earlier adapters stay as they are. Raises TrainingError for an adapter of another base model.
    """
    folders = owned(skill, lab)
    aim = [type(objective).__name__, dataclasses.asdict(objective)] if objective else []
    content = digest_of([skill.digest, aim, [digest_of(example) for example in examples]])
    fit = (trainer or lab.trainer).fit(
        lab.model_path,
        examples,
        start=folders[-1] if folders else None,
        out=lab.out(f"{name}-{content[:12]}"),
        seed=lab.seed + step,
        under=folders[:-1],
        objective=objective,
    )
    return replaced(skill, *skill.adapters[:-1], adapter_at(fit.adapter, lab.model_id)), fit


def paced(trainer: Trainer, lr_scale: float, **settings: Any) -> Trainer:
    """Return the trainer with a share of its learning rate, and other settings in place of its own.

    Objectives that compare sessions move a policy much further in a step than imitation does, and want a rate well
    below the trainer's. Raises TrainingError for a trainer without these settings.
    """
    given: Any = trainer
    names = {field.name for field in dataclasses.fields(given)}
    if missing := {"lr", *settings} - names:
        raise TrainingError(f"{type(trainer).__name__} has no {sorted(missing)[0]} to set; choose trainer=torch")
    changed: Trainer = dataclasses.replace(given, lr=given.lr * lr_scale, **settings)
    return changed


def positive(lr_scale: float) -> None:
    """Raise ConfigError for a share of the learning rate that is not above 0."""
    if lr_scale <= 0.0:
        raise ConfigError(f"strategy.lr_scale={lr_scale} has to be above 0: it is a share of trainer.lr")
