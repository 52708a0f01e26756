"""LoRA training with MLX: the model and its layers are mlx-lm's; batches, masks, loss and steps are our own.

mlx-lm's own loop is not used: its loss counts a padding token in every row and, masked, only the last turn; its Adam
is not bias-corrected by default; it clips no gradient and drops the last batch.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from looper.errors import TrainingError
from looper.lora_files import WEIGHTS
from looper.protocols import Fit
from looper.records import Example
from looper.training import adapters, checkpoints
from looper.training.batches import batches, parts, split
from looper.training.checkpoints import Progress
from looper.training.formats import peft_folder
from looper.training.mlx_adapted import MlxAdapted, array_of, tensor_of
from looper.training.schedule import Schedule
from looper.training.tokens import Tokenised, Tokeniser, usable, usable_or_why

LOG = logging.getLogger(__name__)


class _Training:
    """The state of one training."""

    def __init__(self, trainer: Schedule, adapted: MlxAdapted, steps: int) -> None:
        self.trainer, self.adapted, self.steps = trainer, adapted, steps
        # Without bias correction, mlx's default, the first steps would be about three times too large.
        self.optimiser = optim.AdamW(trainer.lr, betas=[0.9, 0.999], eps=1e-8, weight_decay=0.0, bias_correction=True)
        self.gradient = nn.value_and_grad(adapted.model, self._loss)
        self.at = Progress()

    def state(self) -> dict[str, Any]:
        """Return parameters and optimiser as tensors, by name; a step's number is exact in float32, too."""
        trees = {"parameters": self.adapted.model.trainable_parameters(), "optimiser": self.optimiser.state}
        return {name: {key: tensor_of(one) for key, one in tree_flatten(tree)} for name, tree in trees.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put parameters and optimiser into a stored state."""
        model = self.adapted.model
        model.update(tree_unflatten([(name, array_of(one)) for name, one in state["parameters"].items()]))
        self.optimiser.init(model.trainable_parameters())
        stored = [
            (name, array_of(state["optimiser"][name]).astype(fresh.dtype))
            for name, fresh in tree_flatten(self.optimiser.state)
        ]
        self.optimiser.state = tree_unflatten(stored)
        mx.eval(model.trainable_parameters(), self.optimiser.state)
        self.at = Progress(**state["progress"])

    def _loss(self, part: Sequence[Tokenised], mass: float) -> mx.array:
        losses, weights, _ = self.adapted.cross_entropy(part)
        return (losses * weights).sum() / mass

    def epoch(self, batched: Sequence[Sequence[Tokenised]], pause: Callable[[], None]) -> float:
        """Take a step on every batch that is left; return the mean loss per unit of weight.

        Between steps, `pause` is called.
        """
        at = self.at
        for batch in batched[at.batch :]:
            mass = sum(example.weight for example in batch)
            loss, summed = 0.0, None
            for part in parts(batch, self.trainer.batch_tokens):
                value, gradients = self.gradient(part, mass)
                summed = gradients if summed is None else tree_map(mx.add, summed, gradients)
                mx.eval(value, summed)  # frees the part's graph before the next one is built
                loss += value.item()
            clipped, norm = optim.clip_grad_norm(summed, self.trainer.clip)
            if not math.isfinite(loss + norm.item()):
                raise TrainingError(
                    f"the loss is {loss}, its gradient's norm {norm.item()} at step {at.step + 1} of {self.steps}; "
                    f"lower trainer.lr={self.trainer.lr:g}"
                )
            self.optimiser.learning_rate = self.trainer.lr * self.trainer.rate(at.step, self.steps)
            self.optimiser.update(self.adapted.model, clipped)
            mx.eval(self.adapted.model.trainable_parameters(), self.optimiser.state)
            at.step, at.batch, at.loss, at.mass = at.step + 1, at.batch + 1, at.loss + loss * mass, at.mass + mass
            if at.batch < len(batched):
                pause()
        return at.loss / at.mass


def fit(
    trainer: Schedule,
    model: Path,
    examples: Sequence[Example],
    *,
    start: Path | None,
    out: Path,
    seed: int,
    under: Sequence[Path],
    inputs: str,
) -> Fit:
    """Train an adapter and publish it in `out`; see Schedule.fit."""
    began = time.monotonic()
    part = out.with_name(out.name + ".part")
    state = checkpoints.matching(part, inputs)
    if state is None:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    tokenised, left_out = usable(model, examples)
    settings: Any = trainer  # both trainers have the fields that the split reads
    train, held = split(settings, tokenised, seed)
    adapted = MlxAdapted(model, bf16=bf16(trainer), under=under)
    adapted.attach(trainer, start, seed)
    units = [(example,) for example in train]
    epochs = [
        [[example for unit in batch for example in unit] for batch in batches(units, trainer.batch, seed, epoch)]
        for epoch in range(trainer.epochs)
    ]
    training = _Training(trainer, adapted, sum(len(batched) for batched in epochs))
    if state is not None:
        training.restore(state)
    resumed = training.at.step

    def store() -> None:
        seconds = training.at.seconds + time.monotonic() - began
        checkpoints.write(part, inputs, replace(training.at, seconds=seconds), training.state())

    try:
        _epochs(training, epochs, held, part, store)
    except TrainingError as error:
        saved = (part / WEIGHTS).is_file()
        kept = f"the best finished epoch's adapter is in {part}" if saved else "no epoch was finished"
        raise TrainingError(f"{error}; {kept}") from error
    history = training.at.history
    fitted = Fit(
        adapter=out,
        train_loss=history[-1]["train_loss"],
        held_out_loss=min((row["held_out_loss"] for row in history), default=None) if held else None,
        steps=training.at.step,
        seconds=training.at.seconds + time.monotonic() - began,
        history=tuple(history),
    )
    facts: dict[str, Any] = {"examples": len(train), "held_out_examples": len(held), "seed": seed, "backend": "mlx"}
    facts |= {"data": adapters.data_digest(examples), "settings": trainer.decisive()}
    facts |= {"left_out": dict(left_out)} if left_out else {}
    facts |= {"resumed_at_step": resumed} if resumed else {}
    checkpoints.clear(part)
    adapters.publish(part, out, fitted, {"inputs": inputs, "bf16": bf16(trainer), **facts}, model=model)
    return fitted


def _epochs(
    training: _Training,
    epochs: Sequence[Sequence[Sequence[Tokenised]]],
    held: Sequence[Tokenised],
    part: Path,
    store: Callable[[], None],
) -> None:
    """Train epoch after epoch, keeping the best in `part`, until patience or the epochs end; `store` checkpoints."""
    trainer, saved = training.trainer, time.monotonic()

    def pause() -> None:
        nonlocal saved
        if time.monotonic() - saved >= 60.0 * trainer.checkpoint_minutes:
            store()
            saved = time.monotonic()

    while (at := training.at).epoch < len(epochs) and at.waited < trainer.patience:
        row = {"epoch": float(at.epoch + 1), "train_loss": training.epoch(epochs[at.epoch], pause)}
        if held:
            row["held_out_loss"] = _held_out(training, held)
            at.waited = 0 if row["held_out_loss"] < at.best else at.waited + 1
            at.best = min(at.best, row["held_out_loss"])
        if at.waited == 0:
            peft_folder.write(training.adapted.lora(), part)
        at.history.append(row)
        at.epoch, at.batch, at.loss, at.mass = at.epoch + 1, 0, 0.0, 0.0
        if at.epoch < len(epochs) and at.waited < trainer.patience:
            store()
            saved = time.monotonic()


def _held_out(training: _Training, held: Sequence[Tokenised]) -> float:
    """Return the mean loss per unit of weight on held-out examples."""
    losses = training.adapted.example_losses(held, training.trainer.batch_tokens)
    weights = [example.weight for example in held]
    found = sum(a * w for a, w in zip(losses, weights, strict=True)) / sum(weights)
    if not math.isfinite(found):
        raise TrainingError(f"the held-out loss is {found} after epoch {training.at.epoch + 1}; lower trainer.lr")
    return found


def bf16(trainer: Schedule) -> bool:
    """Return whether the base model's weights are bfloat16."""
    return mx.metal.is_available() if trainer.precision.value == "auto" else trainer.precision.value == "bf16"


def losses(trainer: Schedule, model: Path, examples: Sequence[Example], under: Sequence[Path]) -> list[float]:
    """Return each example's mean loss, NaN for those left out; see Schedule.losses."""
    tokenised, _ = usable(model, examples)
    adapted = MlxAdapted(model, bf16=bf16(trainer), under=under)
    found = [math.nan] * len(examples)
    for example, loss in zip(tokenised, adapted.example_losses(tokenised, trainer.batch_tokens), strict=True):
        found[example.index] = loss
    return found


def embeddings(trainer: Schedule, model: Path, texts: Sequence[str]) -> Any:
    """Return mean last hidden states (N, D); see Schedule.embeddings."""
    import numpy as np

    if not texts:
        raise TrainingError("no texts to embed; give one at least")
    tokeniser = Tokeniser(model)
    adapted = MlxAdapted(model, bf16=bf16(trainer))
    rows = []
    for i, text in enumerate(texts):
        ids = tokeniser.encode(text)
        if not ids:
            raise TrainingError(f"text {i} of {len(texts)} has no token to embed: {text!r}")
        if tokeniser.limit and len(ids) > tokeniser.limit:
            LOG.warning("text %d is cut for its embedding: %d tokens, the model takes %d", i, len(ids), tokeniser.limit)
            ids = ids[: tokeniser.limit]
        rows.append(np.array(adapted.hidden(mx.array([ids]))[0].astype(mx.float32).mean(axis=0)))
    return np.stack(rows)


def divergence(
    trainer: Schedule, model: Path, groups: Sequence[Sequence[Example]], under: Sequence[Path]
) -> list[float | TrainingError]:
    """Return the mean KL(base || adapted) per unit of weight, of each group; see Schedule.divergence."""
    found = [usable_or_why(model, examples) for examples in groups]
    if all(isinstance(group, TrainingError) for group in found):
        return [group for group in found if isinstance(group, TrainingError)]
    base = MlxAdapted(model, bf16=bf16(trainer))
    adapted = MlxAdapted(model, bf16=bf16(trainer), under=under)
    return [group if isinstance(group, TrainingError) else _mean_kl(base, adapted, group) for group in found]


def _mean_kl(base: MlxAdapted, adapted: MlxAdapted, tokenised: Sequence[Tokenised]) -> float:
    total = mass = 0.0
    for example in tokenised:
        ours, theirs = (nn.log_softmax(one.logits([example])[0], axis=-1) for one in (base, adapted))
        kl = (mx.exp(ours) * (ours - theirs)).sum(axis=-1)  # (N,)
        total += float((kl * mx.array([w for w in example.weights[1:] if w])).sum().item())
        mass += example.weight
    return total / mass
