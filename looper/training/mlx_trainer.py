"""LoRA training with MLX, Apple's array library, as an option of the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from looper.errors import MachineError, TrainingError
from looper.protocols import Ability, Fit, Objective, Penalty
from looper.records import Example
from looper.training.schedule import Schedule
from looper.training.torch_trainer import check, check_model, check_wanted


@dataclass(frozen=True, kw_only=True)
class MlxTrainer(Schedule):
    """Trains a LoRA adapter on all linear layers, as the torch trainer does: same batches, masks, steps and format.

    For Macs, where MLX uses the graphics; on Linux it runs on the CPU, about twelve times slower than torch. It knows
    the cross-entropy only: objectives and penalties are refused, as is the Fisher information.
    """

    @property
    def abilities(self) -> frozenset[Ability]:
        """The cross-entropy is all."""
        return frozenset()

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

        A finished training of the very same inputs in `out` is returned as it is; one that was killed goes on from its
        last checkpoint, to the adapter that it would have given undisturbed.

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
        settings = {**self.decisive(), "backend": "mlx"}
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

    def divergence(
        self, model: Path, groups: Sequence[Sequence[Example]], adapters: Sequence[Path]
    ) -> Sequence[float | TrainingError]:
        """Return for each group of examples the mean KL(base || adapted) in nats over its supervised positions.

        In the place of a group of which no example can be used stands the error that says why.
        """
        engine = _engine()
        check_model(model)
        found: list[float | TrainingError] = engine.divergence(self, model, groups, adapters)
        return found

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
