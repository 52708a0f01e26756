"""What a strategy works with, and the matching of arms in the number of their examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from looper.errors import ModelError, TrainingError
from looper.protocols import Past, Trainer
from looper.records import Episode, Example, Skill

RESERVED = frozenset({"world", "stage", "available", "skipped", "skill", "adapters", "native"})
"""What the run says of each stage of learning beside a strategy's notes."""


@dataclass(frozen=True, kw_only=True)
class LearningLab:
    """A strategy's tools; its folders are content-addressed, so that finished training is reused."""

    trainer: Trainer
    weights: Path | None
    model_id: str
    seed: int
    root: Path
    past: tuple[Past, ...] = ()
    """The stages learned before, oldest first."""
    episodes: tuple[Episode, ...] = ()
    """All sessions of this stage, failed ones too."""
    attempt: Callable[[Skill, int, float, str, int], Sequence[Episode]] | None = None
    """Tries the stage's train tasks: skill, attempts, temperature, name of the wave, number of tasks (0: all)."""
    convert: Callable[[Sequence[Episode]], Sequence[Example]] | None = None
    """Turns sessions into examples of what they did."""
    demonstrated: bool = False
    """Whether the examples that a strategy is given show reference solutions, whatever the sessions did."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the strategy wants the report to hold."""

    @property
    def model_path(self) -> Path:
        """Folder of the base model's weights. Raises ModelError for a model that cannot be trained here."""
        if self.weights is None:
            raise untrainable(self.model_id)
        return self.weights

    def out(self, name: str) -> Path:
        """Return the folder of one artefact."""
        return self.root / name

    def rollout(
        self, skill: Skill, *, attempts: int, temperature: float, name: str, tasks: int = 0
    ) -> Sequence[Episode]:
        """Try this stage's train tasks again with a skill, or as many of them as are asked for."""
        if self.attempt is None:
            raise ModelError("no sessions can be run here: this lab has no run behind it")
        return self.attempt(skill, attempts, temperature, name, tasks)

    def sessions(self, episodes: Sequence[Episode]) -> Sequence[Example]:
        """Turn episodes into examples of what they did."""
        if self.convert is None:
            raise ModelError("episodes cannot become examples here: this lab has no run behind it")
        return self.convert(episodes)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Keep facts (losses, warnings) for the report. Raises ValueError for a name that the run itself fills."""
        if taken := sorted(facts.keys() & RESERVED):
            raise ValueError(f"a strategy notes {', '.join(taken)}, which the run itself fills: choose another name")
        self.notes.update(facts)


def untrainable(model: str) -> ModelError:
    """Return the error for a model whose weights are not here."""
    return ModelError(
        f"{model} cannot be trained here: choose strategy=none, strategy=playbook, or a model with weights"
    )


DRIFT_EXAMPLES = 16
"""Most examples that the distance to the base model is measured on."""


def drift(lab: LearningLab, skill: Skill, examples: Sequence[Example]) -> dict[str, float | str]:
    """Return the mean KL(base || adapted) in nats per supervised token, on this stage's examples and on earlier ones.

    Forgetting follows it (RL's Razor, 2509.04259). Empty where there is no plain sum of adapters to measure. Where no
    example can be measured, because the model takes none of those drawn, the fact `no_<name>` says why.
    """
    if lab.weights is None or not skill.adapters or skill.router is not None:
        return {}
    folders = [Path(adapter.path) for adapter in skill.adapters]
    earlier = [e for past in lab.past for e in past.examples]
    found = {"kl_new": examples, "kl_old": earlier}
    drawn = {name: rows for name, all_ in found.items() if (rows := matched(all_, DRIFT_EXAMPLES, lab.seed))}
    try:
        measured = lab.trainer.divergence(lab.weights, list(drawn.values()), folders) if drawn else ()
    except TrainingError as error:  # what was trained stands without it
        measured = [error] * len(drawn)
    return {
        (f"no_{name}" if isinstance(kl, TrainingError) else name): (str(kl) if isinstance(kl, TrainingError) else kl)
        for name, kl in zip(drawn, measured, strict=True)
    }


def matched(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return `count` examples, one of each task before a second of any, in their order.

    Arms that are compared learn from equally many; which ones is drawn with the seed. Examples of one group stay
    together, so that there may be fewer.
    """
    rng = Random(f"matched/{seed}")
    by_task: dict[str, dict[str, list[int]]] = {}
    for i, example in enumerate(examples):
        by_task.setdefault(example.task, {}).setdefault(example.group or f"example {i}", []).append(i)
    queues = [list(groups.values()) for groups in by_task.values()]
    rng.shuffle(queues)
    kept: list[int] = []
    for rank in range(max((len(q) for q in queues), default=0)):
        for queue in queues:
            if rank < len(queue) and len(kept) + len(queue[rank]) <= count:
                kept += queue[rank]
    return [examples[i] for i in sorted(kept)]
