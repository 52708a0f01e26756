"""Train a small GPT on the bytes of Python's standard library, on one CPU core, within a fixed budget of tokens.

This is the file to improve. `python train.py`, in a folder with prepare.py, prints `val_bpb`: bits per byte on files
that were never trained on, lower is better. prepare.py fixes the data, the budget, the seed and the score. As it stands
this is a plain GPT: learned positions, GELU, tied embeddings, AdamW, a cosine schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from prepare import CONTEXT, SEED, TOKEN_BUDGET, VOCABULARY, batches, evaluate_bpb  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn import functional as F

# Model
DEPTH = 2
WIDTH = 64
HEADS = 4
MLP_RATIO = 4
INIT_STD = WIDTH**-0.5

# Optimisation; a step is BATCH_SIZE sequences of CONTEXT tokens
BATCH_SIZE = 8
LR = 0.003
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
GRAD_CLIP = 1.0
WARMUP = 0.05  # share of the steps in which the learning rate rises
FINAL_LR = 0.1  # share of the learning rate that is left at the end


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model."""

    vocabulary: int = VOCABULARY
    context: int = CONTEXT
    depth: int = DEPTH
    width: int = WIDTH
    heads: int = HEADS


def norm(x: Tensor) -> Tensor:
    """Normalise the last dimension; there is no gain to learn."""
    return F.layer_norm(x, (x.size(-1),))


class Attention(nn.Module):
    """Causal self-attention with several heads."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        """Make the projections of one layer."""
        super().__init__()
        self.layer = layer
        self.head_width = config.width // config.heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def split(self, x: Tensor) -> Tensor:
        """Give every head its part: (B, T, C) to (B, H, T, D)."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the positions: (B, T, C) to (B, T, C)."""
        q = self.split(self.query(x))
        k = self.split(self.key(x))
        v = self.split(self.value(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).flatten(2)
        mixed: Tensor = self.out(y)
        return mixed


class MLP(nn.Module):
    """The part of a block that treats every position alone."""

    def __init__(self, config: GPTConfig) -> None:
        """Make the two projections."""
        super().__init__()
        hidden = int(MLP_RATIO * config.width)
        self.up = nn.Linear(config.width, hidden, bias=False)
        self.down = nn.Linear(hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        hidden = F.gelu(self.up(x))
        mapped: Tensor = self.down(hidden)
        return mapped


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        """Make the block of one layer."""
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then think: (B, T, C) to (B, T, C)."""
        x = x + self.attention(norm(x))
        x = x + self.mlp(norm(x))
        return x


class GPT(nn.Module):
    """A decoder-only transformer over bytes."""

    def __init__(self, config: GPTConfig) -> None:
        """Make the model with random weights."""
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
        self.head.weight = self.token.weight  # tied

    def features(self, tokens: Tensor) -> Tensor:
        """Return what the head reads: (B, T) to (B, T, C)."""
        x = self.token(tokens)
        x = x + self.position.weight[: tokens.size(1)]
        for block in self.blocks:
            x = block(x)
        return norm(x)

    def scores(self, features: Tensor) -> Tensor:
        """Return scores of the next token: (B, T, C) to (B, T, V)."""
        scores: Tensor = self.head(features)
        return scores

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token: (B, T) to (B, T, V)."""
        return self.scores(self.features(tokens))


def rate(progress: float) -> float:
    """Return the share of the learning rate at a progress in (0, 1]: a linear rise, then a cosine."""
    if progress < WARMUP:
        return progress / WARMUP
    left = (1 - progress) / (1 - WARMUP)
    return FINAL_LR + (1 - FINAL_LR) * (0.5 - 0.5 * math.cos(math.pi * left))


def decay(progress: float) -> float:
    """Return the weight decay at a progress in (0, 1]."""
    return WEIGHT_DECAY


def change(p: Tensor, update: Tensor, lr: float, wd: float) -> None:
    """Take one step; matrices also shrink."""
    if p.ndim > 1:
        p.mul_(1 - lr * wd)
    p.sub_(lr * update)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        """Start with moments of 0."""
        self.parameters, self.lr, self.count = parameters, lr, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, progress: float) -> None:
        """Update all parameters."""
        self.count += 1
        beta1, beta2 = BETAS
        for p, m, v in zip(self.parameters, self.first, self.second, strict=True):
            g = p.grad
            if g is None:
                continue
            m.lerp_(g, 1 - beta1)
            v.lerp_(g * g, 1 - beta2)
            update = (m / (1 - beta1**self.count)) / ((v / (1 - beta2**self.count)).sqrt() + 1e-8)
            change(p, update, self.lr * rate(progress), decay(progress))


def optimisers(model: GPT) -> Iterator[AdamW]:
    """Say what updates which parameters."""
    yield AdamW(list(model.parameters()), LR)


def loss_of(model: GPT, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss that is minimised, in nats per token."""
    features = model.features(x)
    return F.cross_entropy(model.scores(features).flatten(0, 1), y.flatten())


def train(model: GPT) -> int:
    """Spend the budget on the model and return the number of steps."""
    steps: int = TOKEN_BUDGET // (BATCH_SIZE * CONTEXT)
    updating = list(optimisers(model))
    for step, (x, y) in enumerate(batches(BATCH_SIZE)):
        loss = loss_of(model, x, y)
        if not math.isfinite(loss.item()):
            raise SystemExit(f"FAIL: the loss is {loss.item()} at step {step}")
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        for optimiser in updating:
            optimiser.step((step + 1) / steps)
        if step % 100 == 0:
            print(f"step {step:05d} | loss: {loss.item():.4f}", flush=True)
    return steps


def main() -> None:
    """Train and score one model."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms(True), without loading the compiler
    torch.manual_seed(SEED)
    model = GPT(GPTConfig())
    begun = time.perf_counter()
    steps = train(model)
    trained = time.perf_counter()
    val_bpb = evaluate_bpb(model.eval())
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {trained - begun:.1f}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")
    print("peak_vram_mb:     0.0")
    print("mfu_percent:      nan")
    print(f"total_tokens_M:   {steps * BATCH_SIZE * CONTEXT / 1e6:.3f}")
    print(f"num_steps:        {steps}")
    print(f"num_params_M:     {sum(p.numel() for p in model.parameters()) / 1e6:.3f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
