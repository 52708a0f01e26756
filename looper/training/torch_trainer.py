"""LoRA training with torch and PEFT, as an option of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from looper.errors import ConfigError, TrainingError
from looper.protocols import Fit
from looper.records import Example


class Decay(Enum):
    """How the learning rate falls after its warm-up."""

    linear = "linear"
    cosine = "cosine"


class Precision(Enum):
    """What matrices are multiplied in; adapters and optimiser are always float32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


@dataclass(frozen=True, kw_only=True)
class TorchTrainer:
    """Trains a LoRA adapter on all linear layers; the defaults follow Schulman et al. 2025 (LoRA Without Regret).

    The same inputs on the same kind of processor give the same adapter, bit for bit, with `threads` 1.
    """

    rank: int = 16
    """Rank of the adapter's matrices."""
    alpha: int = 32
    """Numerator of the adapter's scale alpha / rank."""
    lr: float = 1e-3
    """Peak learning rate of AdamW; 1e-3 fits the bundled model, about 2e-4 one of 7B parameters."""
    epochs: int = 3
    """Passes over the examples."""
    batch: int = 2
    """Examples of one optimiser step, of similar length. A bundled run has 20 to 90 examples: with 8 a step, three
    epochs are 6 to 9 steps, and the adapter changes next to nothing."""
    batch_tokens: int = 4096
    """Padded tokens that go through the model at once; a larger batch is summed up in parts."""
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    decay: Decay = Decay.linear
    """Fall of the learning rate to 0 after the warm-up: linear or cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Precision = Precision.auto
    """auto is bf16 where the processor multiplies it natively, else fp32."""
    held_out: float = 0.1
    """Share of the tasks (not examples) whose loss decides which epoch is kept; 0 keeps the last epoch."""
    held_out_min_tasks: int = 40
    """Fewest tasks from which any are held out: the loss of two or three sessions is no reason to stop."""
    patience: int = 1
    """Epochs without a better held-out loss after which training stops."""
    threads: int = 1
    """Threads of torch; more than 1 pays from about 100M parameters on."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "epochs", "batch", "batch_tokens", "patience", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is not positive; choose 1 or more")
        for name in ("warmup", "held_out"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is no share; choose from 0 up to below 1")
        if self.lr <= 0.0 or self.clip <= 0.0:
            raise ConfigError(f"trainer.lr={self.lr} and trainer.clip={self.clip} have to be above 0")

    def fit(self, model: Path, examples: Sequence[Example], *, start: Path | None, out: Path, seed: int) -> Fit:
        """Train an adapter of the model in `model`, from `start` or anew, into the folder `out`.

        A finished training of the very same inputs in `out` is returned as it is; anything else there is replaced.

        Raises TrainingError for no examples, an example that cannot be tokenised turn by turn, or a loss that is not
        finite (the best finished epoch's adapter then stays beside `out`, and the error names it).
        """
        from looper.training import adapters, lora

        check(model, examples)
        settings = {k: v.value if isinstance(v, Enum) else v for k, v in dataclasses.asdict(self).items()}
        inputs = adapters.inputs_digest(model, examples, start, settings, seed)
        with adapters.alone(out):  # another job of a sweep may want the very same adapter
            if (done := adapters.finished(out, inputs)) is not None:
                return done
            return lora.fit(self, model, examples, start=start, out=out, seed=seed, inputs=inputs)

    def losses(self, model: Path, examples: Sequence[Example], adapter: Path | None = None) -> Sequence[float]:
        """Return each example's mean loss per supervised token (nats)."""
        from looper.training import lora

        check(model, examples)
        return lora.losses(self, model, examples, adapter)


def check(model: Path, examples: Sequence[Example]) -> None:
    """Raise TrainingError unless there is a model on disk and something to train on."""
    for name in ("config.json", "tokenizer.json"):
        if not (model / name).is_file():
            raise TrainingError(
                f"model folder {str(model)!r} has no {name}; training needs a model in Hugging Face's format on disk"
            )
    if not examples:
        raise TrainingError("no examples to train on; work on more tasks, or give strategy=none")
