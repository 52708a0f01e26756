"""Train a GPT on one GPU within a fixed budget, and score it in bits per byte. This is the file to improve.

`python train.py`, in a folder with prepare.py, prints `val_bpb` on documents that were never trained on; lower is
better. As it stands: rotary positions, normalised queries and keys, sliding windows, value embeddings, squared ReLU,
Muon for matrices and AdamW for the rest, a warm-down. Without a GPU the same file trains a small model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from prepare import CONTEXT, DEVICE, LARGE, SEED, UNCOUNTED_STEPS, VOCABULARY, Clock, batches, corpus, evaluate_bpb  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

# Model
DEPTH = 6 if LARGE else 2
HEAD_WIDTH = 128 if LARGE else 32
HEADS = 8 if LARGE else 4
WIDTH = HEADS * HEAD_WIDTH
MLP_RATIO = 4
WINDOWS = "SSSL"  # S(hort) or L(ong) attention of the layers, repeated; the last layer is always long
SHORT_WINDOW = CONTEXT // 4
ROPE_BASE = 10000
GATE_WIDTH = 32  # channels that decide how much of a value embedding each head takes
SOFT_CAP = 15.0  # scores stay within plus and minus this

# Optimisation
TOTAL_BATCH = 2**19 if LARGE else 2**11  # tokens of a step
ROOMY = LARGE and torch.cuda.get_device_properties(0).total_memory > 7e10
DEVICE_BATCH = 64 if ROOMY else 32 if LARGE else 8  # rows of CONTEXT tokens that go through the model at once
MATRIX_LR = 0.02  # Muon; the others are AdamW's
EMBEDDING_LR = 0.3
HEAD_LR = 0.004
SCALAR_LR = 0.02
MOMENTUM = 0.95
QUINTICS = [(3.4445, -4.7750, 2.0315)] * 5  # coefficients of each step of orthogonal
BETAS = (0.8, 0.95)
WEIGHT_DECAY = 0.1  # of the matrices; falls to 0 with time
WARMUP = 0.0  # share of the time in which the learning rates rise
WARMDOWN = 0.5  # share of the time in which they fall
FINAL_LR = 0.0  # share of the learning rates that is left at the end

# Hardware; kernels of plain attention, best first; peaks of dense bfloat16, by part of the device's name
COMPILE = LARGE
HALF = LARGE and torch.cuda.get_device_capability()[0] >= 8  # bfloat16 on CUDA; everything else is float32
KERNELS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
PEAK_TFLOPS = {"H200": 989.5, "H100 PCIe": 756.0, "H100": 989.5, "A100": 312.0, "L40S": 362.0, "4090": 165.2}


@dataclass(frozen=True)
class GPTConfig:
    """Shape of the model."""

    vocabulary: int = VOCABULARY
    context: int = CONTEXT
    depth: int = DEPTH
    width: int = WIDTH
    heads: int = HEADS
    windows: str = WINDOWS
    short_window: int = SHORT_WINDOW

    def window(self, layer: int) -> int:
        """Return how many positions a layer's attention sees, its own included."""
        short = self.windows[layer % len(self.windows)] == "S" and layer < self.depth - 1
        return self.short_window if short else self.context

    def has_values(self, layer: int) -> bool:
        """Say whether a layer has value embeddings: every other one does, and the last."""
        return (self.depth - 1 - layer) % 2 == 0


def norm(x: Tensor) -> Tensor:
    """Normalise the last dimension; there is no gain to learn."""
    return F.rms_norm(x, (x.size(-1),))


def rotations(context: int, width: int) -> Tensor:
    """Return the cosine and sine of each position and frequency: (2, T, D / 2)."""
    frequencies = ROPE_BASE ** -(torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(context).float(), frequencies)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Turn pairs of channels by their position's angles (Su et al. 2021): (B, H, T, D) to the same."""
    cos, sin = by[:, : x.size(2)]
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1).type_as(x)


def sliding(window: int, length: int, device: str) -> BlockMask:
    """Say which blocks of a row hold positions that a query sees: itself and the `window - 1` before it."""
    return create_block_mask(lambda b, h, q, k: (q >= k) & (q - k < window), None, None, length, length, device=device)


def attend(q: Tensor, k: Tensor, v: Tensor, window: int, mask: BlockMask | None = None) -> Tensor:
    """Let each position see itself and the `window - 1` before it: three times (B, H, T, D) to (B, H, T, D)."""
    if mask is not None and torch.compiler.is_compiling():  # a kernel that skips what no query sees
        return flex_attention(q, k, v, block_mask=mask)
    length = q.size(2)
    if window >= length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    back = torch.arange(length, device=q.device)[:, None] - torch.arange(length, device=q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < window))


class Attention(nn.Module):
    """Causal self-attention with several heads, and in some layers an embedding of the token added to its value."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.window = config.window(layer)
        self.mask: BlockMask | None = None  # of the window; training sets it where it compiles
        self.head_width = config.width // config.heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.token_value = nn.Embedding(config.vocabulary, config.width) if config.has_values(layer) else None
        self.gate = nn.Linear(GATE_WIDTH, config.heads, bias=False) if config.has_values(layer) else None

    def split(self, x: Tensor) -> Tensor:
        """Give every head its part: (B, T, C) to (B, H, T, D)."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)

    def forward(self, x: Tensor, tokens: Tensor, by: Tensor) -> Tensor:
        """Mix the positions: (B, T, C) to (B, T, C)."""
        weights = torch.cat([self.query.weight, self.key.weight, self.value.weight])  # one product beats three
        q, k, v = (self.split(part) for part in F.linear(x, weights).chunk(3, dim=-1))
        q, k = rotate(q, by), rotate(k, by)
        q, k = norm(q), norm(k)
        if self.token_value is not None and self.gate is not None:
            share = 2 * torch.sigmoid(self.gate(x[..., :GATE_WIDTH]))  # (B, T, H), 1 at the start
            v = v + share.transpose(1, 2).unsqueeze(-1) * self.split(self.token_value(tokens)).type_as(v)
        y = attend(q.type_as(v), k.type_as(v), v, self.window, self.mask)
        y = y.transpose(1, 2).flatten(2)
        out: Tensor = self.out(y)
        return out


class Block(nn.Module):
    """Attention and a part that treats every position alone, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.up = nn.Linear(config.width, int(MLP_RATIO * config.width), bias=False)
        self.down = nn.Linear(int(MLP_RATIO * config.width), config.width, bias=False)
        self.keep = nn.Parameter(torch.tensor(1.0))
        self.recall = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, first: Tensor, tokens: Tensor, by: Tensor) -> Tensor:
        """Bring the first stream back in, attend, then think: (B, T, C) to (B, T, C)."""
        x = self.keep * x + self.recall * first
        x = x + self.attention(norm(x), tokens, by)
        out: Tensor = x + self.down(F.relu(self.up(norm(x))).square())
        return out


class GPT(nn.Module):
    """A decoder-only transformer."""

    rotations: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.register_buffer("rotations", rotations(config.context, config.width // config.heads), persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the weights; what writes to the residual stream, and the gates, start at 0."""
        for name, module in self.named_modules():
            if name.endswith((".out", ".down", ".gate")):
                nn.init.zeros_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight)
        self.head.weight.mul_(0.1)

    def features(self, tokens: Tensor) -> Tensor:
        """Return what the head reads: (B, T) to (B, T, C)."""
        x = self.token(tokens)
        x = norm(x)
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=HALF and tokens.is_cuda):
            x = first = x.bfloat16() if HALF and tokens.is_cuda else x
            for block in self.blocks:
                x = block(x, first, tokens, self.rotations)
            return norm(x)

    def scores(self, features: Tensor) -> Tensor:
        """Return scores of the next token: (B, T, C) to (B, T, V)."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=HALF and features.is_cuda):
            scores: Tensor = self.head(features)
        return SOFT_CAP * torch.tanh(scores.float() / SOFT_CAP)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores of the next token: (B, T) to (B, T, V)."""
        return self.scores(self.features(tokens))


def rate(progress: float) -> float:
    """Return the share of the learning rates when a share of the time has passed: up, level, then down to the end."""
    if progress < WARMUP:
        return progress / WARMUP
    left = min(1.0, (1 - progress) / WARMDOWN) if WARMDOWN else 1.0
    return FINAL_LR + (1 - FINAL_LR) * left


def orthogonal(g: Tensor) -> Tensor:
    """Return (N, R, C) with the singular vectors of `g` and values near 1: Newton-Schulz steps (Jordan et al. 2024)."""
    x: Tensor = g.bfloat16() if HALF else g
    x = x.mT if g.size(-2) > g.size(-1) else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in QUINTICS:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if g.size(-2) > g.size(-1) else x).type_as(g)


class Muon:
    """Nesterov momentum whose updates of matrices are made orthogonal; matrices of one shape go together."""

    def __init__(self, parameters: list[nn.Parameter], lr: float) -> None:
        self.lr = lr
        shapes = {p.shape: [q for q in parameters if q.shape == p.shape] for p in parameters}
        self.groups = [(group, torch.zeros(len(group), *shape, device=DEVICE)) for shape, group in shapes.items()]

    @torch.no_grad()
    def step(self, progress: float) -> None:
        """Update all matrices."""
        lr, wd = self.lr * rate(progress), WEIGHT_DECAY * (1 - progress)
        for group, momentum in self.groups:
            g = torch.stack([p.grad for p in group if p.grad is not None])
            momentum.lerp_(g, 1 - MOMENTUM)
            updates = orthogonal(g.lerp(momentum, MOMENTUM))
            scale = max(1.0, g.size(-2) / g.size(-1)) ** 0.5
            for p, update in zip(group, updates, strict=True):
                p.mul_(1 - lr * wd)
                p.sub_(update, alpha=lr * scale)


class AdamW:
    """PyTorch's AdamW with a learning rate a group and the schedule of `rate`; nothing decays."""

    def __init__(self, groups: list[tuple[list[nn.Parameter], float]]) -> None:
        made = [{"params": p, "lr": lr, "base": lr} for p, lr in groups]
        self.inner = torch.optim.AdamW(made, betas=BETAS, eps=1e-10, weight_decay=0.0, fused=DEVICE != "mps")

    def step(self, progress: float) -> None:
        """Update all groups."""
        for group in self.inner.param_groups:
            group["lr"] = group["base"] * rate(progress)
        self.inner.step()


def optimisers(model: GPT) -> Iterator[Muon | AdamW]:
    """Say what updates which parameters."""
    named = dict(model.named_parameters())
    head = [named.pop("head.weight")]
    tables = [f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)]
    embeddings = [named.pop(name) for name in tables]
    yield Muon([p for p in named.values() if p.ndim == 2], MATRIX_LR)
    yield AdamW([(embeddings, EMBEDDING_LR), (head, HEAD_LR), ([p for p in named.values() if p.ndim < 2], SCALAR_LR)])


def loss_of(model: GPT, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss that is minimised, in nats per token."""
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def train(model: GPT) -> Clock:
    """Spend the budget on the model and return the clock, which knows the steps."""
    parts, rest = divmod(TOTAL_BATCH, DEVICE_BATCH * CONTEXT)
    if rest or not parts:
        raise SystemExit(f"TOTAL_BATCH is {TOTAL_BATCH}; it has to be a multiple of {DEVICE_BATCH * CONTEXT} tokens")
    step_loss: Callable[[GPT, Tensor, Tensor], Tensor] = torch.compile(loss_of, dynamic=False) if COMPILE else loss_of
    for part in model.modules() if COMPILE and LARGE else ():
        if isinstance(part, Attention) and part.window < CONTEXT:
            part.mask = sliding(part.window, CONTEXT, DEVICE)
    updating, rows, clock = list(optimisers(model)), batches(DEVICE_BATCH), Clock()
    while clock.progress < 1:
        total = torch.zeros((), device=DEVICE)
        for _ in range(parts):
            x, y = next(rows)
            loss = step_loss(model, x, y) / parts
            loss.backward()
            total += loss.detach()
        for optimiser in updating:
            optimiser.step(clock.progress)
        model.zero_grad()
        if not math.isfinite(total.item()):
            raise SystemExit(f"FAIL: the loss is {total.item()} at step {clock.steps}")
        taken = clock.tick()
        if clock.steps % 10 == 1:
            print(f"step {clock.steps - 1:05d} | {clock.progress:4.0%} | loss: {total:.4f} | {taken:.3f} s", flush=True)
    return clock


def flops_per_token(model: GPT) -> float:
    """Return the operations of training on a token: 6 a weight of a matrix, 12 C a position that a layer may see."""
    matrices: int = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    seen = sum(model.config.window(layer) for layer in range(model.config.depth))
    return 6.0 * matrices + 12.0 * model.config.width * seen


def mfu(model: GPT, clock: Clock) -> float:
    """Return the share of the GPU's peak that the counted steps used, in percent; nan where the peak is unknown."""
    name = torch.cuda.get_device_name() if HALF else ""
    peak: float = next((tflops for known, tflops in PEAK_TFLOPS.items() if known in name), math.nan)
    done: float = flops_per_token(model) * (clock.steps - UNCOUNTED_STEPS) * TOTAL_BATCH
    return float(100 * done / (clock.seconds * peak * 1e12))


def main() -> None:
    """Train and score one model."""
    started = time.perf_counter()
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(SEED)
    model = GPT(GPTConfig()).to(DEVICE)
    print(f"{corpus().manifest['data']}, {corpus().manifest['digest'][:12]}, on {DEVICE}", flush=True)
    with sdpa_kernel(KERNELS, set_priority=True):
        clock = train(model)
    print(f"the first {UNCOUNTED_STEPS} steps took {clock.uncounted:.1f} s; what is above the others' is not counted")
    val_bpb = evaluate_bpb(model.eval())
    print(f"---\nval_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {clock.seconds:.1f}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")
    print(f"peak_vram_mb:     {torch.cuda.max_memory_allocated() / 2**20 if LARGE else 0.0:.1f}")
    print(f"mfu_percent:      {mfu(model, clock):.2f}")
    print(f"total_tokens_M:   {clock.steps * TOTAL_BATCH / 1e6:.3f}")
    print(f"num_steps:        {clock.steps}")
    print(f"num_params_M:     {sum(p.numel() for p in model.parameters()) / 1e6:.3f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
