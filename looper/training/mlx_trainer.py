"""LoRA training with MLX, Apple's array library, as an option of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

from looper.errors import ConfigError, MachineError, TrainingError
from looper.protocols import Fit, Objective, Penalty
from looper.records import Example
from looper.training.torch_trainer import Decay, Precision, check, check_model, check_wanted


@dataclass(frozen=True, kw_only=True)
class MlxTrainer:
    """Trains a LoRA adapter on all linear layers, as the torch trainer does: same batches, masks, steps and format.

    For Macs, where MLX uses the graphics; on Linux it runs on the CPU, about twelve times slower than torch. It knows
    the cross-entropy only: objectives and penalties are refused, as is the Fisher information.
    """

    rank: int = 16
    """Rank of the adapter's matrices."""
    alpha: int = 32
    """Numerator of the adapter's scale alpha / rank; mlx-lm calls alpha / rank its `scale`."""
    lr: float = 1e-3
    """Peak learning rate of AdamW, bias-corrected; 1e-3 fits the bundled model, about 2e-4 one of 7B parameters."""
    epochs: int = 3
    """Passes over the examples."""
    batch: int = 2
    """Examples of one optimiser step, of similar length."""
    batch_tokens: int = 4096
    """Padded tokens that go through the model at once; a larger batch is summed up in parts."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    decay: Decay = Decay.linear
    """Fall of the learning rate to 0 after the warm-up: linear or cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Precision = Precision.auto
    """Of the base model's weights: auto is bf16 on Apple's graphics, else fp32. The adapter's are always fp32."""
    held_out: float = 0.1
    """Share of the tasks (not examples) whose loss decides which epoch is kept; 0 keeps the last epoch."""
    held_out_min_tasks: int = 40
    """Fewest tasks from which any are held out."""
    patience: int = 1
    """Epochs without a better held-out loss after which training stops."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "epochs", "batch", "batch_tokens", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is not positive; choose 1 or more")
        for name in ("warmup", "held_out"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is no share; choose from 0 up to below 1")
        if self.lr <= 0.0 or self.clip <= 0.0:
            raise ConfigError(f"trainer.lr={self.lr} and trainer.clip={self.clip} have to be above 0")

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
        """Train an adapter of the model in `model`, from `start` or anew, into the folder `out` in PEFT's format.

        A finished training of the very same inputs in `out` is returned as it is; one that was killed begins anew.

        Raises MachineError without the library; TrainingError for no examples, a loss that is not finite, and for a
        penalty or an objective, which this trainer does not know.
        """
        from looper.training import adapters

        for name, given in (("penalty", penalty), ("objective", objective)):
            if given is not None:
                raise _unknown(f"the {name} {type(given).__name__}")
        engine = _engine()
        check(model, examples)
        check_wanted(examples)
        settings = {k: v.value if isinstance(v, Enum) else v for k, v in dataclasses.asdict(self).items()}
        settings["backend"] = "mlx"
        inputs = adapters.inputs_digest(model, examples, start, settings, seed, under=under)
        with adapters.alone(out):
            if (done := adapters.finished(out, inputs)) is not None:
                return done
            fitted: Fit = engine.fit(self, model, examples, start=start, out=out, seed=seed, under=under, inputs=inputs)
            return fitted

    def losses(self, model: Path, examples: Sequence[Example], adapters: Sequence[Path] = ()) -> Sequence[float]:
        """Return each example's mean loss per supervised token (nats) under the sum of some adapters.

        An example that cannot be tokenised turn by turn, or is too long, has NaN.
        """
        engine = _engine()
        check(model, examples)
        found: list[float] = engine.losses(self, model, examples, adapters)
        return found

    def embeddings(self, model: Path, texts: Sequence[str]) -> Any:
        """Return the mean last hidden state of each text, a float32 array (N, D)."""
        engine = _engine()
        check_model(model)
        return engine.embeddings(self, model, texts)

    def divergence(self, model: Path, examples: Sequence[Example], adapters: Sequence[Path]) -> float:
        """Return the mean KL(base || adapted) in nats over the supervised positions of the examples."""
        engine = _engine()
        check(model, examples)
        return float(engine.divergence(self, model, examples, adapters))

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
        """Raise TrainingError: this trainer knows no Fisher information."""
        raise _unknown("the Fisher information")


def _engine() -> ModuleType:
    """Import the training itself. Raises MachineError if MLX is missing."""
    try:
        from looper.training import mlx_lora
    except ImportError as error:
        raise MachineError(
            f"trainer=mlx needs the library ({error}): pip install 'looper[mlx]', or give trainer=torch"
        ) from error
    return mlx_lora


def _unknown(what: str) -> TrainingError:
    return TrainingError(f"trainer=mlx does not know {what}; give trainer=torch, or a strategy without it")
