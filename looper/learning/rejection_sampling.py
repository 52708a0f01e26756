"""Rejection sampling: more attempts at the same tasks, and a plain fit on those that the hidden tests accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from looper.errors import ConfigError
from looper.learning.continuing import continued
from looper.learning.fitting import Fitting, facts, learned_from
from looper.protocols import Lab
from looper.records import Episode, Example, Skill


def solved_share(episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the share of each task's attempts that resolved it; attempts the machine spoiled do not count."""
    tried: dict[str, list[bool]] = {}
    for episode in episodes:
        if not episode.infrastructure:
            tried.setdefault(episode.task, []).append(episode.resolved)
    return {task: sum(results) / len(results) for task, results in tried.items()}


def easy_first(examples: Sequence[Example], share: Mapping[str, float]) -> list[Example]:
    """Order examples by how often their task was solved, the most often first; by task where that is equal."""
    return sorted(examples, key=lambda example: (-share.get(example.task, 0.0), example.task))


def banded(examples: Sequence[Example], bands: int) -> list[list[Example]]:
    """Cut examples, in their order, into at most `bands` parts of nearly equal size."""
    bands = min(bands, len(examples))
    edges = [round(i * len(examples) / bands) for i in range(bands + 1)] if bands else [0]
    return [list(examples[a:b]) for a, b in pairwise(edges)]


@dataclass(frozen=True, kw_only=True)
class RejectionSampling(Fitting):
    """Fine-tunes on verified attempts, new ones and those of the stage; later stages continue the last adapter.

    Every round samples with the skill of the round before, and fits anew from the skill that the stage began with on
    all verified attempts so far (Zelikman et al. 2022). The data option decides what of an attempt is learned,
    but for one that shows reference solutions: there it is the attempt itself.
    """

    attempts: int = 8
    """New attempts at each of the stage's tasks in a round."""
    temperature: float = 1.0
    """Temperature of the new attempts."""
    rounds: int = 1
    """Rounds of sampling and fitting."""
    cap: int = 2
    """Most examples of one task: easy tasks otherwise crowd out the others. The data option's own cap holds too."""
    bands: int = 1
    """Fits one after the other, on the easiest tasks first (by the share of attempts that solved them); 1 is one fit on
    all examples, whose order the trainer shuffles. Each band has its own warm-up and decay of the learning rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("attempts", "rounds", "cap", "bands"):
            if getattr(self, name) < 1:
                raise ConfigError(f"strategy.{name}={getattr(self, name)} is not positive; choose 1 or more")
        if self.temperature <= 0.0:
            raise ConfigError(
                f"strategy.temperature={self.temperature} draws nothing new; choose a value above 0, e.g. 1.0"
            )

    def verified(self, episodes: Sequence[Episode], lab: Lab) -> list[Example]:
        """Return the examples of accepted attempts, easy tasks first, at most `cap` of each."""
        accepted = {episode.digest for episode in episodes if episode.resolved}
        taken: dict[str, int] = {}
        out: list[Example] = []
        for example in lab.sessions(episodes):
            if example.episode in accepted and taken.get(example.task, 0) < self.cap:
                taken[example.task] = taken.get(example.task, 0) + 1
                out.append(example)
        return easy_first(out, solved_share(episodes))

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with its last adapter trained on verified attempts.

        Raises NothingToLearn for too few tasks, TrainingError for an adapter of another base model.
        """
        learned, pool = skill, list(lab.episodes)
        rows: list[dict[str, object]] = []
        for number in range(self.rounds):
            name = f"rejection-{number}"
            extra = lab.rollout(learned, attempts=self.attempts, temperature=self.temperature, name=name)
            pool += extra
            found = self.verified(pool, lab)
            tried = [episode.resolved for episode in extra if not episode.infrastructure]
            row: dict[str, object] = {"attempts": len(extra), "resolved": sum(tried), "examples": len(found)}
            rows.append(row)
            lab.note({"rounds": rows, **learned_from(found)})  # told even where there is too little to go on
            self.preflight(found, lab)
            learned = skill
            for band, part in enumerate(banded(found, self.bands)):
                learned, fit = continued(learned, part, lab, name=f"{name}-{band}", step=number)
                row |= facts(fit)
        return learned
