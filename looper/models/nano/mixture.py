"""A mixture's experts beside the base weights: low-rank terms that every row weighs for itself.

y = x W + ((x A) * w) B with the A and B of all experts side by side, and w the row's weight of the
expert that a column belongs to. Both products have one fixed shape and the weighing is elementwise,
so a row's bits still depend on nothing but the row (see network.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from looper.errors import ModelError
from looper.models.nano.product import Product, Term
from looper.models.nano.shape import Shape
from looper.models.nano.weights import LowRank, low_rank, queries, turned

SITES = {
    "qkv": tuple(f"self_attn.{p}_proj" for p in "qkv"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The engine's products by name, and the modules whose matrices are one below the other in each."""

NORMS = {"qkv": "input_layernorm.weight", "gate_up": "post_attention_layernorm.weight"}
"""Norm weights that the engine has folded into the matrices behind them."""


@dataclass(frozen=True)
class Stack:
    """The experts' terms of one product."""

    down: Product  # in -> K, the columns of all experts' modules
    up: Product  # K -> out, zero outside of a module's own rows
    owners: tuple[int, ...]
    """Expert of each of the K columns."""


class Mixture:
    """The terms of all experts in all layers."""

    def __init__(self, shape: Shape, tensors: dict[str, Tensor], experts: Sequence[Path], router: Path) -> None:
        """Stack the adapters in `experts` for the base weights `tensors`; `router` weighs them.

        Raises ModelError for an adapter that is more than plain LoRA, or of another model.
        """
        self.shape = shape
        self.experts = len(experts)
        self.router = router
        self.norm = tensors["model.norm.weight"]
        self.norms = {
            (i, site): tensors[f"model.layers.{i}.{name}"] for i in range(shape.layers) for site, name in NORMS.items()
        }
        terms: dict[str, list[tuple[int, LowRank]]] = {}
        for expert, folder in enumerate(experts):
            for term in low_rank(tensors, folder):
                terms.setdefault(term.target, []).append((expert, term))
        self._stacks: dict[tuple[int, str], Stack] = {}
        for i in range(shape.layers):
            for site, modules in SITES.items():
                names = [f"model.layers.{i}.{module}.weight" for module in modules]
                if any(name in terms for name in names):
                    self._stacks[i, site] = self._stack(i, site, [(tensors[n], terms.pop(n, [])) for n in names])
        if terms:
            raise ModelError(f"the experts adapt {min(terms)}, which this engine cannot weigh; adapt its linear layers")

    def _stack(self, layer: int, site: str, modules: list[tuple[Tensor, list[tuple[int, LowRank]]]]) -> Stack:
        height = sum(matrix.shape[0] for matrix, _ in modules)
        downs: list[Tensor] = []
        ups: list[Tensor] = []
        owners: list[int] = []
        top = 0
        for place, (matrix, terms) in enumerate(modules):
            for expert, term in terms:
                b = term.b * term.scaling
                if site == "qkv" and place < 2:  # as `arrange` lays out queries and keys
                    b = queries(self.shape, b) if place == 0 else turned(self.shape, b)
                up = torch.zeros(height, b.shape[1])
                up[top : top + b.shape[0]] = b
                downs.append(term.a * self.norms[layer, site] if site in NORMS else term.a)
                ups.append(up)
                owners += [expert] * b.shape[1]
            top += matrix.shape[0]
        return Stack(down=Product(torch.cat(downs)), up=Product(torch.cat(ups, 1)), owners=tuple(owners))

    def term(self, shares: Sequence[tuple[float, ...]], length: int) -> Term:
        """Return the term of rows of `length` tokens with these weights; empty ones add nothing."""
        weights = torch.zeros(len(shares), self.experts)
        for row, given in enumerate(shares):
            if given:
                weights[row] = torch.tensor(given)
        weights = weights.repeat_interleave(length, 0)  # (R * T, E)
        columns: dict[tuple[int, ...], Tensor] = {}  # most layers share one order of experts

        def add(layer: int, name: str, x: Tensor, y: Tensor) -> Tensor:
            stack = self._stacks.get((layer, name))
            if stack is None:
                return y
            if stack.owners not in columns:
                columns[stack.owners] = weights[:, list(stack.owners)]  # (R * T, K)
            return stack.up.added(stack.down(x).mul_(columns[stack.owners]), y)

        return add
