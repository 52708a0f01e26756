"""Group-relative policy optimisation: the agent tries again, the hidden tests are the reward, the adapter follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import ConfigError, NothingToLearn
from looper.learning.comparing import usable, whole
from looper.learning.continuing import continued, paced, positive
from looper.learning.fitting import Trains, learned_from, owned
from looper.protocols import Ability, Lab, PolicyGradient
from looper.records import Episode, Example, Skill

EPSILON = 1e-4
"""Added to a group's standard deviation, as in TRL."""


def advantages(rewards: Sequence[float]) -> list[float]:
    """Return a group's rewards less their mean, over their standard deviation (Shao et al. 2024, section 4.1.2).

    The deviation is the sample's (n - 1), with EPSILON added to it, as in TRL. Rewards that are all equal (a single
    one too) say nothing, and give zeros.
    """
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1))
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one round of attempts gave to learn from."""

    examples: tuple[Example, ...]
    """Sessions of the groups with a signal; the label is the advantage."""
    reward: float
    """Share of the usable attempts that were resolved."""
    groups: int
    """Groups with a usable attempt."""
    silent: int
    """Groups among them whose attempts all had the same reward."""


def compared(episodes: Sequence[Episode]) -> Update:
    """Group usable attempts by task and turn rewards into advantages; groups without a signal are dropped."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        if usable(episode):
            groups.setdefault(episode.task, []).append(episode)
    examples: list[Example] = []
    silent = 0
    for task, group in groups.items():
        values = advantages([float(episode.resolved) for episode in group])
        silent += not any(values)
        examples += [whole(e, value, task) for e, value in zip(group, values, strict=True) if value]
    tried = [episode.resolved for group in groups.values() for episode in group]
    reward = sum(tried) / len(tried) if tried else 0.0
    return Update(examples=tuple(examples), reward=reward, groups=len(groups), silent=silent)


@dataclass(frozen=True, kw_only=True)
class Grpo(Trains):
    """On-policy reinforcement from the verifier's reward (Shao et al. 2024); later stages continue the last adapter.

    A group's loss is the mean over all its tokens, where the paper takes each session's own mean first, which favours
    short successes. Attempts that the machine spoiled, or that saw a pruned conversation, are in no group.
    Every update draws some of the stage's train tasks and tries them with the skill as it is, so a stage costs
    updates x group x tasks sessions. Each update is one fit of the trainer.
    """

    group: int = 4
    """Attempts at each task in an update: the group whose mean reward is the baseline."""
    updates: int = 20
    """Rounds of attempts and fits in a stage."""
    tasks: int = 4
    """Tasks drawn for each update; 0 tries all of the stage's."""
    epochs: int = 1
    """Passes over the sessions of an update, in place of the trainer's; 1 stays closest to on-policy."""
    lr_scale: float = 0.1
    """Share of the trainer's learning rate, which is set for imitation."""
    clip: float = 0.2
    """How far a token's probability may move in one update, as a share, before its gradient is cut off."""
    beta: float = 0.0
    """Weight of the KL to the base model; 0 leaves it out."""
    temperature: float = 1.0
    """Temperature of the attempts. The loss weighs tokens by their probability at temperature 1: at any other, the
    attempts are those of a policy that is not quite the one that is updated."""

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ConfigError(f"strategy.group={self.group} compares nothing; choose 2 or more attempts")
        for name in ("updates", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"strategy.{name}={getattr(self, name)} is not positive; choose 1 or more")
        if self.tasks < 0:
            raise ConfigError(f"strategy.tasks={self.tasks} is negative; choose 0 for all of a stage's, or more")
        positive(self.lr_scale)
        if self.temperature <= 0.0 or self.clip <= 0.0 or self.beta < 0.0:
            raise ConfigError(
                f"strategy.temperature={self.temperature} and strategy.clip={self.clip} have to be above 0, "
                f"strategy.beta={self.beta} at least 0; greedy attempts are all alike"
            )

    @property
    def imitates(self) -> bool:
        """It makes its own sessions, and their rewards say what is wanted."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """The loss weighs sessions by their advantage."""
        return frozenset({Ability.policy_gradient})

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill after the updates; `examples` are not used, since every update makes its own.

        Raises NothingToLearn if no update had a signal, TrainingError for an adapter of another base model.
        """
        owned(skill, lab)
        objective = PolicyGradient(clip=self.clip, beta=self.beta)
        trainer = paced(lab.trainer, self.lr_scale, epochs=self.epochs)
        rows: list[dict[str, float]] = []
        learned, used = skill, list[Example]()
        for number in range(self.updates):
            name = f"grpo-{number}"
            episodes = lab.rollout(
                learned, attempts=self.group, temperature=self.temperature, name=name, tasks=self.tasks
            )
            update = compared(episodes)
            row = {"update": float(number), "reward": update.reward, "groups": float(update.groups)}
            row["silent_groups"] = float(update.silent)
            if update.examples:
                learned, fit = continued(
                    learned, update.examples, lab, objective=objective, trainer=trainer, name=name, step=number
                )
                row |= {"loss": fit.train_loss, "steps": float(fit.steps)}
                used += update.examples
            rows.append(row)
        skipped = sum("loss" not in row for row in rows)
        lab.note({"updates": rows, "skipped_updates": skipped, **learned_from(used)})
        if skipped == self.updates:
            raise NothingToLearn(
                f"none of {self.updates} updates had a task that some attempts solved and others missed; rewards "
                f"{min(r['reward'] for r in rows):.2f} to {max(r['reward'] for r in rows):.2f}; raise strategy.group "
                "or strategy.temperature, or choose easier or harder tasks"
            )
        return learned
