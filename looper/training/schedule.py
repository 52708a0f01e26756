"""What every trainer may be told of a training: size of the adapter, steps, learning rate, what is held out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from looper.errors import ConfigError


class Decay(Enum):
    """How the learning rate falls after its warm-up."""

    linear = "linear"
    cosine = "cosine"


class Precision(Enum):
    """What matrices are multiplied in; adapters and optimiser are always float32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Process(Enum):
    """Where a training runs; no part of what it gives."""

    auto = "auto"
    """A process of its own for a large model where there is a graphics card, else here."""
    here = "here"
    own = "own"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The settings that all backends share; the defaults follow Schulman et al. 2025 (LoRA Without Regret)."""

    rank: int = 16
    """Rank of the adapter's matrices."""
    alpha: int = 32
    """Numerator of the adapter's scale alpha / rank; mlx-lm calls alpha / rank its `scale`."""
    lr: float = 1e-3
    """Peak learning rate of AdamW, bias-corrected; 1e-3 fits the bundled model, about 2e-4 one of 7B parameters."""
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
    """auto is bf16 where the processor multiplies it natively (torch), or on Apple's graphics (mlx), else fp32."""
    held_out: float = 0.1
    """Share of the tasks (not examples) whose loss decides which epoch is kept; 0 keeps the last epoch."""
    held_out_min_tasks: int = 40
    """Fewest tasks from which any are held out: the loss of two or three sessions is no reason to stop."""
    patience: int = 1
    """Epochs without a better held-out loss after which training stops."""
    checkpoint_minutes: float = 3.0
    """Minutes between checkpoints within an epoch; there is one after every epoch, too. No part of the result."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "epochs", "batch", "batch_tokens", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is not positive; choose 1 or more")
        for name in ("warmup", "held_out"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"trainer.{name}={getattr(self, name)} is no share; choose from 0 up to below 1")
        if self.lr <= 0.0 or self.clip <= 0.0:
            raise ConfigError(f"trainer.lr={self.lr} and trainer.clip={self.clip} have to be above 0")
        if self.checkpoint_minutes < 0.0:
            raise ConfigError(f"trainer.checkpoint_minutes={self.checkpoint_minutes} is negative; choose 0 or more")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate's factor at a step, from 0."""
        rise = math.ceil(self.warmup * steps)
        if step < rise:
            return (step + 1) / rise
        left = 1.0 - (step - rise) / max(1, steps - rise)
        return left if self.decay is Decay.linear else 0.5 * (1.0 - math.cos(math.pi * left))

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide what a training gives."""
        values = {k: v.value if isinstance(v, Enum) else v for k, v in dataclasses.asdict(self).items()}
        del values["checkpoint_minutes"]
        return values


@dataclass(frozen=True, kw_only=True)
class TorchSchedule(Schedule):
    """What the torch backend may be told besides."""

    threads: int = 1
    """Threads of torch; more than 1 pays from about 100M parameters on."""
    process: Process = Process.auto
    """Where `fit` trains: here, or in a process of its own, whose end gives all memory of the graphics card back. auto
    is own for a model of 100M parameters or more where there is a card (CUDA, Apple's), else here. A launch of several
    processes always trains in them. No part of the result."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threads < 1:
            raise ConfigError(f"trainer.threads={self.threads} is not positive; choose 1 or more")

    def decisive(self) -> dict[str, Any]:
        """Return the settings that decide what a training gives."""
        values = super().decisive()
        del values["process"]
        return values
