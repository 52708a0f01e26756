"""Which experts of a mixture a session needs: weights from its first user message, by a router on disk.

A router's folder holds router.json (`kind`, `top_k`, `temperature`, ...) and router.safetensors:
`mlp`: `mean` and `scale` (D,), then a hidden layer (`hidden.weight`, `hidden.bias`), ReLU, and
`output.weight`, `output.bias`, on the mean last hidden state of the message's tokens;
`arrow`: a row of `arrow.MODULE` (E, in) for each expert, compared with the inputs of that module.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from looper.errors import ModelError
from looper.models.nano.cache import Pool
from looper.models.nano.mixture import SITES, Mixture
from looper.models.nano.network import Network
from looper.models.nano.product import Product, Term, unchanged
from looper.models.nano.shape import PAD
from looper.models.nano.tiles import streams

MLP = {"mean", "scale", "hidden.weight", "hidden.bias", "output.weight", "output.bias"}
"""Tensors of a router of kind `mlp`."""

WEIGHING = {"mlp": "output.", "arrow": "arrow."}
"""Beginning of the tensors that have a row for each expert, by the router's kind."""

REMEMBERED = 4096
"""Messages whose weights are kept; of others they are computed again, the same bits."""


class Routing:
    """Weighs the experts for messages, with the bare base model's view of them."""

    def __init__(self, network: Network, mixture: Mixture, pool: Pool) -> None:
        """Read the mixture's router. Raises ModelError if it does not fit the model or the experts."""
        self._network, self._mixture, self._pool = network, mixture, pool
        folder = mixture.router
        try:
            settings = json.loads((folder / "router.json").read_text(encoding="utf-8"))
            self._kind, self._top_k = str(settings["kind"]), int(settings["top_k"])
            self._temperature = float(settings["temperature"])
            self._tensors = {k: v.float() for k, v in load_file(str(folder / "router.safetensors")).items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"the router in {folder} is unreadable ({error!r}); train the mixture again") from error
        self._check(folder)
        self._prototypes = _arrows(mixture, self._tensors)
        self._seen: dict[tuple[int, ...], tuple[float, ...]] = {}

    def _check(self, folder: Path) -> None:
        if self._kind not in WEIGHING:
            raise ModelError(f"the router in {folder} is of kind {self._kind!r}; this engine has mlp and arrow")
        if self._top_k < 1 or not self._temperature > 0.0:
            raise ModelError(
                f"the router in {folder} has top_k={self._top_k} and temperature={self._temperature}; they have to be "
                "1 or more, and above 0: train the mixture again"
            )
        if lost := sorted(MLP - self._tensors.keys()) if self._kind == "mlp" else []:
            raise ModelError(f"the router in {folder} lacks {lost[0]}; train the mixture again")
        sizes = {t.shape[0] for name, t in self._tensors.items() if name.startswith(WEIGHING[self._kind])}
        wanted = self._mixture.experts
        if sizes != {wanted}:
            found = " or ".join(map(str, sorted(sizes))) or "no"
            raise ModelError(f"the router in {folder} weighs {found} experts, the skill has {wanted}")
        if self._kind == "mlp" and (width := self._tensors["mean"].shape[0]) != self._network.shape.hidden:
            raise ModelError(
                f"the router in {folder} reads {width} features, the model has {self._network.shape.hidden}; "
                "train the mixture on this model"
            )

    def shares(self, ids: list[int]) -> tuple[float, ...]:
        """Return the experts' weights for a message's tokens; they sum to 1."""
        key = tuple(ids)
        if key not in self._seen:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[key] = self._weigh(ids or [PAD])
        return self._seen[key]

    def _weigh(self, ids: list[int]) -> tuple[float, ...]:
        scores = self._likeness(ids) if self._kind == "arrow" else self._mlp(self._embedding(ids))
        chosen = scores.sort(descending=True, stable=True).indices[: self._top_k]
        weights = torch.zeros_like(scores)
        weights[chosen] = torch.softmax(scores[chosen] / self._temperature, 0)
        return tuple(weights.tolist())

    def _mlp(self, embedding: Tensor) -> Tensor:
        t = self._tensors
        x = (embedding - t["mean"]) / t["scale"]
        hidden = torch.relu(t["hidden.weight"] @ x + t["hidden.bias"])
        scores: Tensor = t["output.weight"] @ hidden + t["output.bias"]
        return scores

    def _embedding(self, ids: list[int]) -> Tensor:
        """Return the mean last hidden state of a text, (D,)."""
        total = torch.zeros(self._network.shape.hidden)
        for stream in self._run(ids, lambda _: unchanged):
            total += self._network.norm(stream).sum(0)
        return total / len(ids) * self._mixture.norm

    def _likeness(self, ids: list[int]) -> Tensor:
        """Return |v^T x| of each expert, the mean over the text's tokens and the adapted modules, (E,)."""
        total, modules = torch.zeros(self._mixture.experts), sum(name.startswith("arrow.") for name in self._tensors)

        def watching(count: int) -> Term:
            def watch(layer: int, name: str, x: Tensor, y: Tensor) -> Tensor:
                if (product := self._prototypes.get((layer, name))) is not None:
                    likeness = product(x)[:count].abs_().sum(0)  # experts of one module after the other
                    total.add_(likeness.view(-1, self._mixture.experts).sum(0))
                return y

            return watch

        self._run(ids, watching)
        return total.div_(len(ids) * modules)

    def _run(self, ids: list[int], term: Callable[[int], Term]) -> list[Tensor]:
        key = "routing\0"
        held = self._pool.take(key)
        self._pool.resize(held, len(ids), {key})
        try:
            return list(streams(self._network, self._pool, held, ids, term))
        finally:
            self._pool.drop(key)


def _arrows(mixture: Mixture, tensors: dict[str, Tensor]) -> dict[tuple[int, str], Product]:
    """Return the prototypes of each product's modules, ready to multiply, norm weights folded in."""
    found = {}
    for layer in range(mixture.shape.layers):
        for site, modules in SITES.items():
            names = [f"arrow.model.layers.{layer}.{module}" for module in modules]
            there = [tensors[name] for name in names if name in tensors]
            if there:
                norm = mixture.norms.get((layer, site))
                found[layer, site] = Product(torch.cat(there) if norm is None else torch.cat(there) * norm)
    return found
