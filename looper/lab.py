"""What a strategy works with, and the matching of arms in the number of their examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from looper.errors import ModelError
from looper.protocols import Trainer
from looper.records import Example


@dataclass(frozen=True, kw_only=True)
class LearningLab:
    """A strategy's tools; its folders are content-addressed, so that finished training is reused."""

    trainer: Trainer
    weights: Path | None
    model_id: str
    seed: int
    root: Path
    notes: dict[str, Any] = field(default_factory=dict)
    """What the strategy wants the report to hold."""

    @property
    def model_path(self) -> Path:
        """Folder of the base model's weights. Raises ModelError for a model that cannot be trained here."""
        if self.weights is None:
            raise ModelError(f"{self.model_id} cannot be trained here: choose strategy=none, or a model with weights")
        return self.weights

    def out(self, name: str) -> Path:
        """Return the folder of one artefact."""
        return self.root / name

    def note(self, facts: Mapping[str, Any]) -> None:
        """Keep facts (losses, warnings) for the report."""
        self.notes.update(facts)


def matched(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return `count` examples, one of each task before a second of any, in their order.

    Arms that are compared learn from equally many; which ones is drawn with the seed.
    """
    rng = Random(f"matched/{seed}")
    by_task: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        by_task.setdefault(example.task, []).append(i)
    queues = list(by_task.values())
    rng.shuffle(queues)
    kept: list[int] = []
    for rank in range(max((len(q) for q in queues), default=0)):
        kept += [q[rank] for q in queues if rank < len(q)]
    return [examples[i] for i in sorted(kept[:count])]
