"""Supervised fine-tuning: one adapter that goes on learning, stage after stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.learning.fitting import Fitting, fitted, owned, replaced
from looper.protocols import Lab
from looper.records import Example, Skill


@dataclass(frozen=True, kw_only=True)
class Sft(Fitting):
    """Cross-entropy on the examples' weighted turns; later stages continue the last adapter."""

    fresh: bool = False
    """Start every stage from the base model instead of the last adapter."""

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with a newly trained adapter in place of its last one.

        Raises NothingToLearn for too few tasks, TrainingError for an adapter of another base model.
        """
        self.preflight(examples, lab)
        if self.fresh or not skill.adapters:
            return replaced(skill, fitted(lab, examples, start=None))
        *below, last = owned(skill, lab, "give strategy.fresh=true")
        return replaced(skill, *skill.adapters[:-1], fitted(lab, examples, start=last, under=below))
