"""KTO on the agent's own sessions: resolved ones wanted, failed ones not, without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import ConfigError, NothingToLearn
from looper.learning.comparing import contested, singles
from looper.learning.continuing import continued, paced, positive
from looper.learning.fitting import Fitting, facts, learned_from
from looper.protocols import Ability, Lab, ProspectTheory
from looper.records import Example, Skill


@dataclass(frozen=True, kw_only=True)
class Kto(Fitting):
    """Raises resolved sessions and lowers failed ones (Ethayarajh et al. 2024); later stages continue the last adapter.

    Unlike pairs it can use a task that was only solved or only missed. Examples that the data option labelled
    (data=preference) are taken as they are.
    """

    beta: float = 0.1
    """How closely the policy is held to where it started; larger is closer."""
    desirable: float = 1.0
    """Weight of the resolved sessions."""
    undesirable: float = 1.0
    """Weight of the failed sessions."""
    balance: bool = True
    """Weigh the rarer side up, so that both weigh the same in all but for the two weights above."""
    lr_scale: float = 0.1
    """Share of the trainer's learning rate, which is set for imitation."""
    cap: int = 2
    """Most sessions of each side for one task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "desirable", "undesirable"):
            if getattr(self, name) <= 0.0:
                raise ConfigError(f"strategy.{name}={getattr(self, name)} has to be above 0")
        positive(self.lr_scale)
        if self.cap < 1:
            raise ConfigError(f"strategy.cap={self.cap} is not positive; choose 1 or more")

    @property
    def imitates(self) -> bool:
        """Failed sessions are learned from as such."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """The loss judges single sessions."""
        return frozenset({Ability.prospect_theory})

    def labelled(self, examples: Sequence[Example], lab: Lab) -> list[Example]:
        """Return the sessions to learn from, labels 1 and -1. Raises NothingToLearn if a side is empty."""
        given = any(example.label < 0 for example in examples)
        found = list(examples) if given else singles(contested(lab, examples), self.cap)
        wanted = sum(example.label > 0 for example in found)
        if not 0 < wanted < len(found):
            raise NothingToLearn(
                f"{wanted} resolved and {len(found) - wanted} failed sessions in {len(lab.episodes)}; both are "
                "needed: raise attempts or temperature, so that tasks are both solved and missed"
            )
        return found

    def objective(self, examples: Sequence[Example]) -> ProspectTheory:
        """Return the objective with the weights of the two sides."""
        wanted = sum(example.label > 0 for example in examples)
        unwanted = len(examples) - wanted
        more = max(wanted, unwanted) if self.balance else 0
        return ProspectTheory(
            beta=self.beta,
            desirable=self.desirable * (more / wanted if more else 1.0),
            undesirable=self.undesirable * (more / unwanted if more else 1.0),
        )

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with its last adapter trained on labelled sessions.

        Raises NothingToLearn if a side is empty or tasks are too few, TrainingError for an adapter of another model.
        """
        found = self.labelled(examples, lab)
        self.preflight(found, lab)
        objective = self.objective(found)
        learned, fit = continued(skill, found, lab, objective=objective, trainer=paced(lab.trainer, self.lr_scale))
        wanted = sum(example.label > 0 for example in found)
        sides = {"desirable": wanted, "undesirable": len(found) - wanted}
        lab.note({**sides, **learned_from(found), **facts(fit)})
        return learned
