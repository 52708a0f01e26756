"""LoRA training with MLX: the model and its layers are mlx-lm's; batches, masks, loss and steps are our own.

mlx-lm's own loop is not used: its loss counts a padding token in every row and, masked, only the last turn; its Adam
is not bias-corrected by default; it clips no gradient and drops the last batch.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from looper.errors import TrainingError
from looper.protocols import Fit
from looper.records import Example
from looper.training import adapters
from looper.training.batches import batches, parts, split
from looper.training.formats import peft_folder
from looper.training.mlx_adapted import MlxAdapted
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
        self.step = 0

    def _loss(self, part: Sequence[Tokenised], mass: float) -> mx.array:
        losses, weights, _ = self.adapted.cross_entropy(part)
        return (losses * weights).sum() / mass

    def epoch(self, batched: Sequence[Sequence[Tokenised]]) -> float:
        """Take a step on every batch and return the mean loss per unit of weight."""
        total = weight = 0.0
        for batch in batched:
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
                    f"the loss is {loss}, its gradient's norm {norm.item()} at step {self.step + 1} of {self.steps}; "
                    f"lower trainer.lr={self.trainer.lr:g}"
                )
            self.optimiser.learning_rate = self.trainer.lr * self.trainer.rate(self.step, self.steps)
            self.optimiser.update(self.adapted.model, clipped)
            mx.eval(self.adapted.model.trainable_parameters(), self.optimiser.state)
            self.step += 1
            total, weight = total + loss * mass, weight + mass
        return total / weight


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
    try:
        history = _epochs(training, epochs, held, part)
    except TrainingError as error:
        kept = f"the best finished epoch's adapter is in {part}" if any(part.iterdir()) else "no epoch was finished"
        raise TrainingError(f"{error}; {kept}") from error
    fitted = Fit(
        adapter=out,
        train_loss=history[-1]["train_loss"],
        held_out_loss=min((row["held_out_loss"] for row in history), default=None) if held else None,
        steps=training.step,
        seconds=time.monotonic() - began,
        history=tuple(history),
    )
    facts: dict[str, Any] = {"examples": len(train), "held_out_examples": len(held), "seed": seed, "backend": "mlx"}
    facts |= {"data": adapters.data_digest(examples), "settings": trainer.decisive()}
    facts |= {"left_out": dict(left_out)} if left_out else {}
    adapters.publish(part, out, fitted, {"inputs": inputs, "bf16": bf16(trainer), **facts}, model=model)
    return fitted


def _epochs(
    training: _Training, epochs: Sequence[Sequence[Sequence[Tokenised]]], held: Sequence[Tokenised], part: Path
) -> list[dict[str, float]]:
    """Train epoch after epoch, keeping the best in `part`, until patience or the epochs end."""
    history: list[dict[str, float]] = []
    best, waited = math.inf, 0
    for number, batched in enumerate(epochs, start=1):
        row = {"epoch": float(number), "train_loss": training.epoch(batched)}
        history.append(row)
        if held:
            losses = training.adapted.example_losses(held, training.trainer.batch_tokens)
            weights = [example.weight for example in held]
            row["held_out_loss"] = sum(a * w for a, w in zip(losses, weights, strict=True)) / sum(weights)
            if not math.isfinite(row["held_out_loss"]):
                raise TrainingError(
                    f"the held-out loss is {row['held_out_loss']} after epoch {number}; lower trainer.lr"
                )
            waited = 0 if row["held_out_loss"] < best else waited + 1
            best = min(best, row["held_out_loss"])
        if waited == 0:
            peft_folder.write(training.adapted.lora(), part)
        elif waited >= training.trainer.patience:
            break
    return history


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
