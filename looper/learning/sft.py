"""Supervised fine-tuning: one adapter that goes on learning, stage after stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.errors import ConfigError, NothingToLearn, TrainingError
from looper.learning.adapters import adapter_at
from looper.protocols import Lab
from looper.records import Example, Skill

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Cross-entropy on the examples' weighted turns; later stages continue the last adapter."""

    fresh: bool = False
    """Start every stage from the base model instead of the last adapter."""
    warn_under: int = 30
    """Distinct tasks below which a warning is logged: a measured effect of so few is likely to be noise."""
    refuse_under: int = 1
    """Distinct tasks below which nothing is trained and an error is raised."""

    def __post_init__(self) -> None:
        if self.refuse_under < 1:
            raise ConfigError(f"strategy.refuse_under={self.refuse_under} is not positive; choose 1 or more")

    @property
    def learns(self) -> bool:
        """An adapter is trained."""
        return True

    def warning(self, examples: Sequence[Example]) -> str:
        """Return what is to be said of the number of examples; '' if there are enough."""
        tasks = len({example.task for example in examples})
        if tasks >= self.warn_under:
            return ""
        return f"{tasks} distinct tasks to learn from, fewer than strategy.warn_under={self.warn_under}: expect noise"

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with a newly trained adapter in place of its last one.

        Raises NothingToLearn for too few tasks, TrainingError for an adapter of another base model.
        """
        tasks = len({example.task for example in examples})
        if tasks < self.refuse_under:
            raise NothingToLearn(
                f"{tasks} tasks with usable examples, strategy.refuse_under={self.refuse_under}; raise attempts, work "
                "on more tasks, or give data.only_resolved=false or strategy=none"
            )
        if text := self.warning(examples):
            LOG.warning(text)
            lab.note({"warning": text})
        last = None if self.fresh or not skill.adapters else skill.adapters[-1]
        if last is not None and last.base != lab.model_id:
            raise TrainingError(
                f"adapter {last.path} belongs to {last.base}, the model is {lab.model_id}; give strategy.fresh=true"
            )
        fit = lab.trainer.fit(
            lab.model_path, examples, start=Path(last.path) if last else None, out=lab.out("adapter"), seed=lab.seed
        )
        lab.note(
            {
                "train_loss": fit.train_loss,
                "held_out_loss": fit.held_out_loss,
                "steps": fit.steps,
                "history": list(fit.history),
                "seconds": fit.seconds,
            }
        )
        kept = () if self.fresh else skill.adapters[:-1]
        return skill.model_copy(update={"adapters": (*kept, adapter_at(fit.adapter, lab.model_id))})
