"""The forward pass: fixed shapes, so that a row's bits never depend on the other rows.

Matrix products of one fixed shape compute each row alike wherever it stands. Attention runs over
pages of 128 positions: scores and weighted sums are taken page by page and added in page order, and
a page that is masked wholly adds exact zeros, so a longer neighbour changes no bit either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from looper.models.nano.mixture import Mixture
from looper.models.nano.product import Term, unchanged
from looper.models.nano.weights import Weights

PAGE = 128
"""Positions in a page of the key-value cache."""

Store = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Writes a layer's new keys and values (R * T, KV, H) and returns all of them, (N * R * KV, PAGE, H) each."""


class Network:
    """A small Qwen2 over rows of tokens that each have their own cache."""

    def __init__(self, weights: Weights, mixture: Mixture | None = None) -> None:
        shape = weights.shape
        self.shape = shape
        self.weights = weights
        self.mixture = mixture
        steps = torch.arange(0, shape.head, 2, dtype=torch.float32) / shape.head
        angles = torch.outer(torch.arange(shape.positions, dtype=torch.float32), 1.0 / shape.rope_theta**steps)
        self._turns = torch.polar(torch.ones_like(angles), angles)  # (positions, H / 2), complex

    def term(self, shares: Sequence[tuple[float, ...]], length: int = 1) -> Term:
        """Return what a mixture adds in rows of `length` tokens with these weights of the experts."""
        return unchanged if self.mixture is None else self.mixture.term(shares, length)

    def mask(self, positions: Tensor, pages: int) -> Tensor:
        """Return 0 where a token at `positions` (R, T) may look and -inf elsewhere, (N, R, 1, 1, T, PAGE)."""
        rows, tokens = positions.shape
        keys = torch.arange(pages * PAGE).view(pages, 1, 1, PAGE)
        hidden = keys > positions.view(1, rows, tokens, 1)
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
        return mask.view(pages, rows, 1, 1, tokens, PAGE)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        store: Store,
        *,
        term: Term = unchanged,
        last: bool = True,
    ) -> Tensor:
        """Run all blocks over `tokens` (R, T) and return the stream, (R * T, D).

        Without `last` the final block stops when its keys and values are stored: nothing after reads more.
        """
        rows, length = tokens.shape
        shape, (d, f) = self.shape, (self.shape.hidden, self.shape.ff)
        turned = shape.heads + shape.kv_heads
        x = self.weights.embedding[tokens.view(-1)]
        turns = self._turns[positions.view(-1)].unsqueeze(1)  # (R * T, 1, H / 2)
        for i, layer in enumerate(self.weights.layers):
            normed = self.norm(x)
            qkv = term(i, "qkv", normed, layer.qkv(normed))
            split = turned * shape.head
            pairs = torch.view_as_complex(qkv[:, :split].view(-1, turned, shape.head // 2, 2))
            qk = torch.view_as_real(pairs * turns).view(-1, turned, shape.head)
            values = qkv[:, split:].view(-1, shape.kv_heads, shape.head)
            stored = store(i, qk[:, shape.heads :], values)
            if not last and i == shape.layers - 1:
                return x
            mixed = self._attend(qk[:, : shape.heads], *stored, mask, rows, length).view(-1, d)
            x = term(i, "out", mixed, layer.out.added(mixed, x))
            normed = self.norm(x)
            gate_up = term(i, "gate_up", normed, layer.gate_up(normed))
            active = F.silu(gate_up[:, :f]).mul_(gate_up[:, f:])
            x = term(i, "down", active, layer.down.added(active, x))
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Return next-token logits of the stream `x`, (R, V)."""
        return self.weights.head(self.norm(x))

    def norm(self, x: Tensor) -> Tensor:
        """Return the stream over its root mean square; the norms' weights are in the matrices that follow."""
        return F.rms_norm(x, (self.shape.hidden,), None, self.shape.rms_eps)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rows: int, length: int) -> Tensor:
        kv, group, h = self.shape.kv_heads, self.shape.heads // self.shape.kv_heads, self.shape.head
        pages = mask.shape[0]
        q = q.view(rows, length, kv, group, h).permute(0, 2, 3, 1, 4)  # (R, KV, G, T, H)
        q = q.expand(pages, -1, -1, -1, -1, -1).reshape(-1, group * length, h)
        scores = torch.bmm(q, keys.transpose(1, 2)).view(pages, rows, kv, group, length, PAGE).add_(mask)
        weights = scores.sub_(scores.amax(-1, keepdim=True).amax(0)).exp2_()  # scores are in bits
        total = weights.sum(-1, keepdim=True)
        mixed = torch.bmm(weights.view(-1, group * length, PAGE), values).view(pages, rows, kv, group, length, h)
        out, norm = mixed[0], total[0]
        for page in range(1, pages):  # always in this order: a sum over the axis would choose its own
            out, norm = out + mixed[page], norm + total[page]
        return out.div_(norm).permute(0, 3, 1, 2, 4).reshape(rows * length, -1)
