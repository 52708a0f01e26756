"""Partial replay: one adapter goes on learning, from new examples mixed with a bounded buffer of past ones."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.errors import ConfigError
from looper.learning.buffers import Priority, by_coverage, by_recency, by_value, kept, replayed
from looper.learning.fitting import Fitting, fitted, owned, replaced
from looper.protocols import Lab
from looper.records import Example, Skill

ISSUE = re.compile(r"^Issue: ", re.MULTILINE)
"""Where the issue begins in a session's first message; recalled notes come before it."""


@dataclass(frozen=True, kw_only=True)
class PartialReplay(Fitting):
    """Continues the last adapter on all new examples and a sample of the buffer; with an empty buffer, plain SFT.

    Experience replay (Rolnick et al. 2019), with a choice of what the buffer forgets.
    """

    size: int = 500
    """Examples that the buffer holds."""
    priority: Priority = Priority.recency
    """What a full buffer keeps: recency, difficulty, diversity or confidence."""
    mix: float = 0.5
    """Share of replayed examples in the training set; the new ones are all there, the replayed ones are added."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 0:
            raise ConfigError(f"strategy.size={self.size} is no number of examples; choose 0 (no replay) or more")
        if not 0.0 <= self.mix < 1.0:
            raise ConfigError(f"strategy.mix={self.mix} is no share; choose from 0 (no replay) up to below 1")

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with a newly trained adapter in place of its last one.

        Raises NothingToLearn for too few tasks in this stage, TrainingError for an adapter of another base model.
        """
        self.preflight(examples, lab)
        past = owned(skill, lab)
        stored = self.buffer(lab)
        chosen = [stored[i] for i in replayed(len(examples), len(stored), self.mix, lab.seed)]
        lab.note({"buffer": len(stored), "replayed": len(chosen)})
        adapter = fitted(lab, [*examples, *chosen], start=past[-1] if past else None, under=past[:-1])
        return replaced(skill, *skill.adapters[:-1], adapter)

    def buffer(self, lab: Lab) -> list[Example]:
        """Return what the buffer holds before this stage, oldest first.

        It is filled and pruned stage by stage, as it was then: nothing evicted comes back, and losses are those under
        the adapters of that time.
        """
        held: list[Example] = []
        for past in lab.past:
            held += past.examples
            if len(held) > self.size:
                ranking = self._ranking(held, [Path(a.path) for a in past.skill.adapters], lab)
                held = [held[i] for i in kept(ranking, self.size)]
        return held

    def _ranking(self, held: Sequence[Example], adapters: Sequence[Path], lab: Lab) -> list[int]:
        if self.priority is Priority.recency or self.size == 0:
            return by_recency(len(held))
        if self.priority is Priority.diversity:
            return by_coverage(lab.trainer.embeddings(lab.model_path, [issue(example) for example in held]))
        losses = lab.trainer.losses(lab.model_path, held, adapters)
        sign = 1.0 if self.priority is Priority.difficulty else -1.0
        # What the model cannot take has no loss (NaN), and no use.
        return by_value([-math.inf if math.isnan(loss) else sign * loss for loss in losses])


def issue(example: Example) -> str:
    """Return the issue text of a session: its first user message without recalled notes."""
    text = next((m.content for m in example.messages if m.role == "user"), "")
    found = ISSUE.search(text)
    return text[found.end() :] if found else text
