"""What is asked of the parts that turn episodes into skill: data, trainers, strategies, and what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from looper.errors import TrainingError
from looper.protocols.parts import Model
from looper.records import Episode, Example, Skill, Task


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a data option may use besides the episodes."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    """The tasks of the episodes, by id: gold patches for the oracle's data."""
    writer: Model | None = None
    """Model that writes synthetic examples; None where none was chosen."""


class Data(Protocol):
    """Turns episodes into training examples."""

    @property
    def native(self) -> bool:
        """Whether the examples are in the agent's own format, and so must parse back as its actions."""
        ...

    @property
    def demonstrates(self) -> bool:
        """Whether the examples show reference solutions, whatever the sessions did."""
        ...

    @property
    def rejects(self) -> bool:
        """Whether some examples show what is not to be imitated (label -1)."""
        ...

    def examples(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Sequence[Example]:
        """Return examples in a deterministic order. Raises TrainingError for native ones that do not parse back."""
        ...


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """A penalty that holds an adapter near an earlier one: lam / 2 * sum_i F_i * (w_i - w*_i)^2."""

    anchor: Path
    """Folder of the adapter w*, in PEFT's format."""
    importance: Path
    """Safetensors file with F: a tensor of each of the anchor's names and shapes (`product`: of each BA's)."""
    lam: float
    product: bool = False
    """Over the entries of the products B A instead of those of A and B (2602.17559)."""


@dataclass(frozen=True, kw_only=True)
class Orthogonal:
    """A penalty that keeps an adapter's input subspace apart from earlier ones': lam * sum |A_past A^T|_1 (O-LoRA)."""

    past: tuple[Path, ...]
    """Folders of the earlier adapters."""
    lam: float


Penalty = Quadratic | Orthogonal


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a training did."""

    adapter: Path
    """Folder in PEFT's format, complete."""
    train_loss: float
    """Mean loss per supervised token (nats) of the last epoch."""
    held_out_loss: float | None
    """Loss on held-out examples; None where none were held out."""
    steps: int
    seconds: float
    history: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Direct preference optimisation on pairs (examples that share a group, labels 1 and -1) (Rafailov et al. 2023)."""

    beta: float
    sft: float = 0.0
    """Weight of the preferred example's mean negative log-likelihood, added to the loss."""


@dataclass(frozen=True, kw_only=True)
class ProspectTheory:
    """KTO on single examples labelled 1 or -1 (Ethayarajh et al. 2024)."""

    beta: float
    desirable: float = 1.0
    undesirable: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SelfDistillation:
    """KL(teacher || student) on supervised positions; the teacher is the base model shown `Example.privileged`."""

    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """Clipped policy gradient with the examples' labels as advantages (Shao et al. 2024)."""

    clip: float = 0.2
    beta: float = 0.0
    """Weight of the KL to the base model."""


Objective = Preference | ProspectTheory | SelfDistillation | PolicyGradient


class Ability(Enum):
    """What a trainer may know beyond the weighted cross-entropy; the value says it in an error."""

    preference = "the objective of preference pairs"
    prospect_theory = "the objective of KTO"
    self_distillation = "the objective of self-distillation"
    policy_gradient = "the policy gradient"
    quadratic = "the quadratic penalty"
    orthogonal = "the penalty of overlap with past adapters"
    importance = "the Fisher information"


class Form(Enum):
    """What a model has to run once a strategy has trained it; the value says it in an error."""

    single = "one adapter"
    stack = "a sum of several adapters"
    mixture = "a mixture of adapters"


class Trainer(Protocol):
    """Trains adapters."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it knows beyond the cross-entropy."""
        ...

    def fit(
        self,
        model: Path,
        examples: Sequence[Example],
        *,
        start: Path | None,
        out: Path,
        seed: int,
        under: Sequence[Path] = (),
        penalty: Penalty | None = None,
        objective: Objective | None = None,
    ) -> Fit:
        """Train a LoRA adapter of the model in `model`, from `start` or anew, into `out`.

        `under` are adapters that stay as they are and are active while the new one learns. Without an objective the
        loss is the weighted cross-entropy. Raises TrainingError for no examples, a NaN loss or a missing metric.
        """
        ...

    def losses(self, model: Path, examples: Sequence[Example], adapters: Sequence[Path] = ()) -> Sequence[float]:
        """Return each example's mean loss per supervised token (nats) under the sum of some adapters."""
        ...

    def importance(
        self,
        model: Path,
        examples: Sequence[Example],
        adapter: Path,
        out: Path,
        *,
        sampled: bool,
        product: bool,
        seed: int,
    ) -> Path:
        """Write the diagonal Fisher information of an adapter's parameters to the file `out` and return it.

        The mean over examples of the squared gradient of one example's log-likelihood; `sampled` draws the labels of
        the supervised positions from the model itself (the Fisher), else they are the example's (the empirical one).
        `product` is over the entries of each B A.
        """
        ...

    def embeddings(self, model: Path, texts: Sequence[str]) -> Any:
        """Return the mean last hidden state of each text, a float32 array (N, D)."""
        ...

    def divergence(
        self, model: Path, groups: Sequence[Sequence[Example]], adapters: Sequence[Path]
    ) -> Sequence[float | TrainingError]:
        """Return for each group of examples the mean KL(base || adapted) in nats over its supervised positions.

        In the place of a group of which no example can be used stands the error that says why.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Past:
    """An earlier stage of the same line of experience."""

    examples: tuple[Example, ...]
    skill: Skill
    """What was known after it."""


class Lab(Protocol):
    """What a strategy may use; made by the run."""

    @property
    def past(self) -> Sequence[Past]:
        """The stages learned before, oldest first."""
        ...

    @property
    def episodes(self) -> Sequence[Episode]:
        """All sessions of this stage, failed ones too."""
        ...

    def rollout(
        self, skill: Skill, *, attempts: int, temperature: float, name: str, tasks: int = 0
    ) -> Sequence[Episode]:
        """Try this stage's train tasks again with a skill; `name` keeps these attempts apart from all others.

        `tasks` is how many of them are drawn, with the run's seed and the name; 0 takes all.
        """
        ...

    @property
    def demonstrated(self) -> bool:
        """Whether the examples that a strategy is given show reference solutions, whatever the sessions did."""
        ...

    def sessions(self, episodes: Sequence[Episode]) -> Sequence[Example]:
        """Turn episodes into examples of what they did.

        With the run's data option, or with the plain one (trajectory) where that shows reference solutions.
        """
        ...

    @property
    def trainer(self) -> Trainer:
        """What fits adapters."""
        ...

    @property
    def model_path(self) -> Path:
        """Folder of the base model's weights. Raises ModelError for a model that cannot be trained."""
        ...

    @property
    def model_id(self) -> str:
        """Identity of the base model."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    def out(self, name: str) -> Path:
        """Return a folder for an artefact of this learning step."""
        ...

    def note(self, facts: Mapping[str, Any]) -> None:
        """Keep facts (losses, warnings) for the report."""
        ...


class Strategy(Protocol):
    """Turns examples into skill."""

    @property
    def learns(self) -> bool:
        """Whether skill can change at all."""
        ...

    @property
    def imitates(self) -> bool:
        """Whether it learns to do as its examples do, whatever their labels say."""
        ...

    def asks(self, stages: int) -> frozenset[Ability]:
        """Return what its trainer has to know in a run of so many stages, beyond the cross-entropy."""
        ...

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill after learning; the given one is not changed.

        Raises NothingToLearn for too few examples.
        """
        ...
