"""A base model in MLX with adapters: what it predicts where an example carries weight, and its adapter's matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear

from looper import mlx_layers
from looper.errors import TrainingError
from looper.training.batches import parts
from looper.training.formats import peft_folder
from looper.training.formats.lora import Lora
from looper.training.schedule import Schedule
from looper.training.tokens import Tokenised

if TYPE_CHECKING:
    from torch import Tensor


class MlxAdapted:
    """A base model, frozen adapters upon it, and at most one that learns.

    None is merged: bfloat16 and quantised weights would round most of an adapter's change away.
    """

    def __init__(self, folder: Path, *, bf16: bool, under: Sequence[Path] = ()) -> None:
        self.folder = folder
        try:
            self.model: Any = mlx_layers.load(folder, mx.bfloat16 if bf16 else mx.float32)
        except (ValueError, FileNotFoundError) as error:
            raise TrainingError(
                f"mlx-lm cannot load {folder}: {error}; give trainer=torch, or another model"
            ) from error
        if not hasattr(self.model, "model"):
            raise TrainingError(f"mlx-lm's {self.model.model_type} has another build; give trainer=torch")
        self.tied = "lm_head" not in self.model
        self.layers: dict[str, LoRALinear] = {}
        """What learns, by the names of the linear layers."""
        self.places: dict[str, Any] = mlx_layers.linear_layers(self.model)
        """What stands at the place of each linear layer: itself, or adapters around it."""
        self.sizes = {name: mlx_layers.size(module) for name, module in self.places.items()}
        for path in under:
            self._freeze(peft_folder.read(path), path)
        self.model.freeze()

    def _freeze(self, lora: Lora, path: Path) -> None:
        for name, (a, b) in lora.factors.items():
            if self.sizes.get(name) != (b.shape[0], a.shape[1]):
                raise TrainingError(f"adapter {path} changes {name}, which this model has not got like that")
            self._around(name, array_of(a).T, array_of(b).T, lora.scale)
        mlx_layers.put(self.model, self.places, lora.factors)

    def _around(self, name: str, lora_a: mx.array, lora_b: mx.array, scale: float) -> LoRALinear:
        """Put the matrices (in, r) and (r, out) around what stands at a linear layer's place."""
        layer = self.places[name] = mlx_layers.around(self.places[name], lora_a, lora_b, scale)
        return layer

    def attach(self, trainer: Schedule, start: Path | None, seed: int) -> None:
        """Add a new adapter, or the one in `start`, as what learns.

        Raises TrainingError if the one in `start` has another rank, scale or other layers.
        """
        rank, scale = trainer.rank, trainer.alpha / trainer.rank
        names = sorted(name for name in self.places if self.tied or name != "lm_head")
        for name, key in zip(names, mx.random.split(mx.random.key(seed), len(names)), strict=True):
            outputs, inputs = self.sizes[name]
            bound = 1.0 / math.sqrt(inputs)  # PEFT's initial distribution, from a stream of our own
            lora_a = mx.random.uniform(-bound, bound, shape=(inputs, rank), key=key)
            self.layers[name] = self._around(name, lora_a, mx.zeros((rank, outputs)), scale)
        if start is not None:
            self._fill(peft_folder.read(start), start, rank, scale)
        mlx_layers.put(self.model, self.places, self.layers)
        self.model.freeze()
        for layer in self.layers.values():
            layer.unfreeze(keys=["lora_a", "lora_b"], recurse=False)

    def _fill(self, lora: Lora, start: Path, rank: int, scale: float) -> None:
        if (lora.rank, lora.scale) != (rank, scale):
            raise TrainingError(
                f"adapter {start} has rank {lora.rank} and scale {lora.scale:g}, the trainer {rank} and {scale:g}; set "
                "trainer.rank and trainer.alpha alike, or start anew (strategy.fresh=true)"
            )
        if set(lora.factors) != set(self.layers):
            odd = min(set(lora.factors) ^ set(self.layers))
            raise TrainingError(f"adapter {start} is not on all linear layers, or on others: {odd}; start anew")
        for name, (a, b) in lora.factors.items():
            self.layers[name].lora_a, self.layers[name].lora_b = array_of(a).T, array_of(b).T

    def lora(self) -> Lora:
        """Return the adapter that learns."""
        layer = next(iter(self.layers.values()))
        return Lora(
            rank=layer.lora_a.shape[1],
            scale=layer.scale,
            factors={name: (tensor_of(one.lora_a.T), tensor_of(one.lora_b.T)) for name, one in self.layers.items()},
            base=str(self.folder),
        )

    def hidden(self, ids: mx.array) -> mx.array:
        """Return the last hidden states (B, T, D) of token ids (B, T)."""
        states: mx.array = self.model.model(ids)
        return states

    def logits(self, batch: Sequence[Tokenised]) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """Return logits (N, V), tokens (N,), weights (N,) and rows (N,) of the tokens that carry weight."""
        width = max(len(example.ids) for example in batch)
        ids = mx.array([[*e.ids, *[0] * (width - len(e.ids))] for e in batch])  # (B, T)
        places = [(r, c) for r, e in enumerate(batch) for c, w in enumerate(e.weights[1:]) if w]
        rows, columns = mx.array([r for r, _ in places]), mx.array([c for _, c in places])
        weights = mx.array([batch[r].weights[c + 1] for r, c in places])
        # Padding is on the right, so causality hides it; only weighted positions need logits.
        hidden = self.hidden(ids[:, :-1])[rows, columns]
        logits = self.model.model.embed_tokens.as_linear(hidden) if self.tied else self.model.lm_head(hidden)
        return logits.astype(mx.float32), ids[rows, columns + 1], weights, rows

    def cross_entropy(self, batch: Sequence[Tokenised]) -> tuple[mx.array, mx.array, mx.array]:
        """Return losses (N,), weights (N,) and rows (N,) of the tokens that carry weight."""
        logits, tokens, weights, rows = self.logits(batch)
        return nn.losses.cross_entropy(logits, tokens, reduction="none"), weights, rows

    def example_losses(self, examples: Sequence[Tokenised], batch_tokens: int) -> list[float]:
        """Return each example's mean loss per unit of weight."""
        order = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
        found = [0.0] * len(examples)
        for part in parts([examples[i] for i in order], batch_tokens):
            losses, weights, rows = self.cross_entropy(part)
            sums: Any = mx.zeros(len(part)).at[rows].add(losses * weights).tolist()
            for example, total in zip(part, sums, strict=True):
                found[order.pop(0)] = total / example.weight
        return found


def array_of(tensor: Tensor) -> mx.array:
    """Return a tensor of torch's in float32."""
    return mx.array(tensor.float().contiguous().numpy())


def tensor_of(array: mx.array) -> Tensor:
    """Return an array of MLX's in float32, for files."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(array.astype(mx.float32)))
