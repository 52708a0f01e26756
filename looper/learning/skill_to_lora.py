"""From text to weights: a playbook is distilled into an adapter, and leaves the prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, NothingToLearn
from looper.learning.continuing import continued
from looper.learning.fitting import Fitting, facts, learned_from
from looper.learning.playbook import Playbook
from looper.learning.playbook_file import content, read_skill
from looper.protocols import Ability, Lab, SelfDistillation
from looper.records import Example, Skill


def without_playbook(example: Example, playbook: str) -> Example:
    """Return the example as if its session had not been shown the playbook at the end of the system message."""
    tail = f"\n{playbook.strip()}"
    if tail == "\n":
        return example
    messages = tuple(
        m.model_copy(update={"content": m.content.removesuffix(tail)}) if m.role == "system" else m
        for m in example.messages
    )
    return example.model_copy(update={"messages": messages})


@dataclass(frozen=True, kw_only=True)
class SkillToLora(Fitting):
    """Distils the base model with a playbook in its prompt into an adapter that needs none (2606.16769).

    loss = KL(base model shown the playbook || adapter) on this stage's examples; the playbook is the given SKILL.md,
    else the skill's own, else the one that strategy=playbook learns from the stage's sessions. The teacher reads it
    before the issue, not at the end of the system message, where sessions show it. Later stages continue the last
    adapter.
    """

    start: str = ""
    """Folder of the SKILL.md to distil; empty takes the skill's playbook, or learns one."""
    temperature: float = 1.0
    """Temperature of both distributions in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0.0:
            raise ConfigError(f"strategy.temperature={self.temperature} has to be above 0")

    @property
    def imitates(self) -> bool:
        """The teacher says what is learned on a session, not the session."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """The student follows a teacher's distribution."""
        return frozenset({Ability.self_distillation})

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide what is learned: of a SKILL.md what it says, not where it lies."""
        return {**dataclasses.asdict(self), "start": content(self.start)}

    def playbook(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> str:
        """Return the text to distil. Raises StoreError for an unusable SKILL.md, NothingToLearn for no text."""
        if self.start:
            return read_skill(Path(self.start)).body
        if text := skill.playbook or Playbook().learn(skill, examples, lab).playbook:
            return text
        raise NothingToLearn(
            f"there is no playbook to distil: {len(lab.episodes)} sessions taught no bullet; give strategy.start"
        )

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with the playbook in its last adapter's weights, and none in its prompt.

        Raises NothingToLearn for too few tasks or no text, TrainingError for an adapter of another base model.
        """
        self.preflight(examples, lab)
        text = self.playbook(skill, examples, lab).strip()
        taught = [without_playbook(e, skill.playbook).model_copy(update={"privileged": f"{text}\n"}) for e in examples]
        learned, fit = continued(skill, taught, lab, objective=SelfDistillation(temperature=self.temperature))
        lab.note({"distilled_playbook": text, **learned_from(taught), **facts(fit)})
        return learned.model_copy(update={"playbook": ""})
