"""O-LoRA: every stage gets an adapter of its own, kept apart from the input directions of the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import ConfigError
from looper.learning.fitting import Fitting, fitted, owned, replaced
from looper.protocols import Ability, Form, Lab, Orthogonal
from looper.records import Example, Skill


@dataclass(frozen=True, kw_only=True)
class OLora(Fitting):
    """Trains a new adapter A, B on top of the frozen past ones; all stay active.

    loss = cross-entropy + lam * sum_{past i} |A_i A^T|_1    (Wang et al. 2023, arXiv 2310.14152)

    The rows of A span what the adapter reads of a layer's input: orthogonal ones do not disturb one another. |.|_1 is
    the sum of absolute entries, as in the authors' code; their paper writes the sum of squares. The skill grows by one
    adapter a stage, each from a random start of its own; the first stage is plain fine-tuning.
    """

    lam: float = 0.5
    """Weight of the overlap with past adapters; 0 stacks adapters freely."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lam < 0.0:
            raise ConfigError(f"strategy.lam={self.lam} is negative; choose 0 (no penalty) or more")

    def asks(self, stages: int) -> frozenset[Ability]:
        """The first stage is plain fine-tuning."""
        return frozenset({Ability.orthogonal} if self.lam and stages > 1 else ())

    def gives(self, stages: int) -> Form:
        """Every stage adds an adapter."""
        return Form.stack if stages > 1 else Form.single

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with one more adapter.

        Raises NothingToLearn for too few tasks, TrainingError for an adapter of another base model.
        """
        self.preflight(examples, lab)
        past = owned(skill, lab)
        penalty = Orthogonal(past=tuple(past), lam=self.lam) if past and self.lam else None
        adapter = fitted(lab, examples, start=None, under=past, penalty=penalty, step=len(lab.past))
        lab.note({"adapter_count": len(past) + 1})
        return replaced(skill, *skill.adapters, adapter)
