"""What campaigns teach: the sessions whose changes were kept become examples, and an adapter is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from looper.campaigns.trials import Played
from looper.errors import ConfigError, NothingToLearn, StoreError, TrainingError
from looper.guards import fitting_together, option_of
from looper.lab import LearningLab, drift
from looper.protocols import Data, Materials, Model, Strategy, Trainer
from looper.records import Episode, Skill, digest_of
from looper.store import Store


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Trains a model on the sessions of a run's campaigns, when all are played."""

    learner: Model
    """Whose adapter is trained: the proposer, or another model whose weights are here."""
    data: Data
    strategy: Strategy
    trainer: Trainer
    ground: str
    """Digest of the values of data option, strategy and trainer."""

    def check(self) -> None:
        """Refuse a model without weights, and parts that do not fit together. Raises LooperError."""
        if self.learner.weights is None:
            raise ConfigError(
                f"strategy={option_of(self.strategy)} has nothing to train: {self.learner.id} has no weights here; "
                "give +model@learner=NAME with a model that has (such as hf), or strategy=none"
            )
        fitting_together(self.learner, self.data, self.strategy, self.trainer, stages=1)

    def learn(self, played: Sequence[Played], store: Store, *, seed: int) -> dict[str, Any]:
        """Train on the campaigns' sessions and return what the report says of it.

        What cannot be learned from is a result too: the facts say why, and what was measured stands.
        """
        episodes = [_episode(store, one, digest) for one in played for digest in _digests(one)]
        facts: dict[str, Any] = {"world": "", "stage": 1, "examples": 0, "available": 0, "tasks": 0, "adapters": []}
        skill, notes = Skill(), {}
        try:
            examples = self.data.examples(episodes, seed, Materials())
            facts |= {"examples": len(examples), "available": len(examples), "tasks": len({e.task for e in examples})}
            ground = [self.learner.id, skill.digest, self.ground, seed, [digest_of(e) for e in examples]]
            lab = LearningLab(
                trainer=self.trainer,
                weights=self.learner.weights,
                model_id=self.learner.id,
                seed=seed,
                root=store.folder("adapters", digest_of([*ground, [e.digest for e in episodes]])),
                episodes=tuple(episodes),
            )
            if not examples:
                raise NothingToLearn(
                    f"none of {len(episodes)} sessions gave an example: by default only those count whose change was "
                    "kept; raise campaign.experiments, or give data.only_resolved=false"
                )
            skill = self.strategy.learn(skill, examples, lab)
            notes = {**drift(lab, skill, examples), **lab.notes}
        except (NothingToLearn, TrainingError) as error:
            facts["skipped"] = str(error)
        facts["adapters"] = [store.below(adapter.path) for adapter in skill.adapters]
        return {**facts, "skill": skill.digest, **notes}


def _digests(one: Played) -> Sequence[str]:
    return [trial.episode for trial in one.trials if trial.episode]


def _episode(store: Store, one: Played, digest: str) -> Episode:
    episode = store.episode(digest)
    if episode is None:
        raise StoreError(
            f"the session {digest} of the campaign {one.name} is no longer in {store.root}: delete "
            f"campaigns/{one.name}-*.json in the run's folder, and the same command makes it again"
        )
    return episode
