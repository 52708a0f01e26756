"""The embedded model as it is trained: Qwen2 with fused projections, exported under its usual names."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from looper.models.nano.shape import Shape
from looper.pretraining.attention import attend


class _Rotate(torch.autograd.Function):
    """Rotary embedding of queries and keys; its gradient is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate `x` (B, T, H, D) by tables (T, H * D), the sine's first half of every head negated."""
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Rotate the gradient back."""
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    b, t, h, d = x.shape
    swapped = x.view(b, t, h, 2, d // 2).flip(-2).view(b, t, h * d)
    # one long inner dimension vectorises; two halves of 16 do not
    turned = x.view(b, t, h * d) * cos
    return turned.addcmul_(swapped, sin).view_as(x)


class _Norm(torch.autograd.Function):
    """RMS norm in as few passes as it can be written in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, kind: torch.dtype) -> Tensor:
        """Normalise `x` (..., d) and return it as `kind`."""
        scale: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight).to(kind)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of the input and the weight."""
        x, weight, scale = ctx.saved_tensors
        hat, g = x * scale, grads[0].float()
        product = (g * hat).view(-1, x.shape[-1])
        mean = torch.mv(product, weight).view(scale.shape).div_(x.shape[-1])
        return (g * weight).sub_(hat.mul_(mean)).mul_(scale), product.sum(0), None, None


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
    return cast(Tensor, _Norm.apply(x, weight, eps, kind))  # type: ignore[no-untyped-call]


class _Block(nn.Module):
    """One pre-norm transformer layer with q/k/v and gate/up each in one matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.groups, self.size = shape.heads, shape.kv_heads, shape.head
        d, rows = shape.hidden, (shape.heads + 2 * shape.kv_heads) * shape.head
        self.eps = shape.rms_eps
        self.norm1 = nn.Parameter(torch.ones(d))
        self.norm2 = nn.Parameter(torch.ones(d))
        self.qkv = nn.Parameter(torch.empty(rows, d))
        self.qkv_bias = nn.Parameter(torch.zeros(rows))
        self.out = nn.Parameter(torch.empty(d, shape.heads * shape.head))
        self.gate_up = nn.Parameter(torch.empty(2 * shape.ff, d))
        self.down = nn.Parameter(torch.empty(d, shape.ff))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map (B, T, d) to (B, T, d), causally."""
        b, t, _ = x.shape
        normed = _norm(x, self.norm1, self.eps)
        qkv = F.linear(normed, self.qkv, self.qkv_bias).view(b, t, -1, self.size)
        turned = _Rotate.apply(qkv[:, :, : self.heads + self.groups], cos, sin)  # type: ignore[no-untyped-call]
        q, k = torch.split(turned, [self.heads, self.groups], dim=2)
        x = x + F.linear(attend(q, k, qkv[:, :, self.heads + self.groups :]), self.out)
        gate, up = F.linear(_norm(x, self.norm2, self.eps), self.gate_up).chunk(2, dim=-1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Network(nn.Module):
    """Qwen2 with tied embeddings; rows are padded on the right, so causality is the only mask needed."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                last = name.endswith((".out", ".down"))  # writes to the residual stream
                std = 0.02 / math.sqrt(2 * shape.layers) if last else 0.02
                nn.init.normal_(p, std=std, generator=generator)
        half = shape.head // 2
        speed = shape.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(shape.positions, dtype=torch.float64)[:, None] * speed  # (T, D/2)
        cos, sin = angles.cos().float(), angles.sin().float()
        turned = shape.heads + shape.kv_heads
        self.register_buffer("cos", torch.cat([cos, cos], dim=-1).repeat(1, turned), persistent=False)
        self.register_buffer("sin", torch.cat([-sin, sin], dim=-1).repeat(1, turned), persistent=False)

    def losses(self, tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropies (N,) of the positions that carry weight, and their weights (N,).

        `tokens` (B, T) and `weights` (B, T): the weight of predicting that token; the first column's is not used.
        """
        t = tokens.shape[1] - 1
        bf16 = torch.is_autocast_enabled("cpu")
        kind = torch.bfloat16 if bf16 else torch.float32
        cos, sin = self.get_buffer("cos")[:t].to(kind), self.get_buffer("sin")[:t].to(kind)
        x = F.embedding(tokens[:, :-1], self.embed)
        for block in self.blocks:
            x = block(x, cos, sin)
        wanted = weights[:, 1:].reshape(-1).nonzero()[:, 0]  # the rest needs no logits
        x = _norm(x.view(-1, x.shape[-1])[wanted], self.norm, self.shape.rms_eps)
        logits = F.linear(x, self.embed)  # (N, V)
        targets = tokens[:, 1:].reshape(-1)[wanted]
        return F.cross_entropy(logits.float(), targets, reduction="none"), weights[:, 1:].reshape(-1)[wanted]
