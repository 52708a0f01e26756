"""Direct preference optimisation on the agent's own sessions: resolved ones against failed ones of the same task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import ConfigError, NothingToLearn
from looper.learning.comparing import complete, contested, pairs
from looper.learning.continuing import continued, paced, positive
from looper.learning.fitting import Fitting, facts, learned_from
from looper.protocols import Ability, Lab, Preference
from looper.records import Example, Skill


@dataclass(frozen=True, kw_only=True)
class Dpo(Fitting):
    """Prefers sessions that resolved a task to sessions that failed at it; later stages continue the last adapter.

    loss = -log sigmoid(beta * (log-ratio of the preferred - log-ratio of the rejected))    (Rafailov et al. 2023)

    Pairs that the data option made (data=preference) are taken as they are.
    """

    beta: float = 0.1
    """How closely the policy is held to where it started; larger is closer."""
    sft: float = 0.2
    """Weight of the preferred session's cross-entropy, which keeps its likelihood from falling; 0 is plain DPO."""
    lr_scale: float = 0.1
    """Share of the trainer's learning rate, which is set for imitation."""
    cap: int = 2
    """Most pairs of one task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0.0 or self.sft < 0.0:
            raise ConfigError(f"strategy.beta={self.beta} has to be above 0 and strategy.sft={self.sft} at least 0")
        positive(self.lr_scale)
        if self.cap < 1:
            raise ConfigError(f"strategy.cap={self.cap} is not positive; choose 1 or more")

    @property
    def imitates(self) -> bool:
        """Failed sessions are learned from as such."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """The loss compares two sessions."""
        return frozenset({Ability.preference})

    def pairs(self, examples: Sequence[Example], lab: Lab) -> list[Example]:
        """Return the pairs to learn from, preferred and rejected in turn.

        Raises NothingToLearn for pairs of too few tasks.
        """
        found = complete(examples) or pairs(contested(lab, examples), self.cap)
        tasks = len({example.task for example in found})
        if tasks < self.refuse_under:
            raise NothingToLearn(
                f"{len(found) // 2} pairs of a resolved and a failed session, of {tasks} tasks, in "
                f"{len(lab.episodes)} sessions; strategy.refuse_under={self.refuse_under} tasks are needed: raise "
                "attempts or temperature, so that tasks are both solved and missed"
            )
        return found

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with its last adapter trained on pairs.

        Raises NothingToLearn for pairs of too few tasks, TrainingError for an adapter of another base model.
        """
        found = self.pairs(examples, lab)
        self.preflight(found, lab)
        objective, trainer = Preference(beta=self.beta, sft=self.sft), paced(lab.trainer, self.lr_scale)
        learned, fit = continued(skill, found, lab, objective=objective, trainer=trainer)
        lab.note({"pairs": len({example.group for example in found}), **learned_from(found), **facts(fit)})
        return learned
