"""A small train.py that the tests of code reading look at and change."""

TRAIN = '''"""Trains a small language model."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from dataclasses import dataclass

DEPTH = 8
ASPECT_RATIO = 64
DIM = DEPTH * ASPECT_RATIO  # follows depth
TOTAL_BATCH = 2**19
ADAM_BETAS = (0.8, 0.95)
WEIGHT_DECAY = 0.2
WARMDOWN = 0.5
WINDOW_PATTERN = "SSSL"
SEED = int(__import__("os").environ.get("SEED", "0"))


@dataclass
class GPTConfig:
    n_layer: int = DEPTH
    n_head: int = 6
    n_kv_head: int = 6


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.proj = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x):
        y = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return self.proj(y)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(DIM, 4 * DIM, bias=False)
        self.down = nn.Linear(4 * DIM, DIM, bias=False)

    def forward(self, x):
        x = self.up(x)
        x = F.relu(x).square()
        return self.down(x)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = Attention(config)
        self.mlp = MLP(config)
        self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))

    def forward(self, x):
        x = x + self.attention(norm(x))
        return x + self.mlp(norm(x))


def learning_rate(step, steps):
    left = (steps - step) / steps
    return min(1.0, left / WARMDOWN)


def _unused(x):
    return x


if __name__ == "__main__":
    STEPS = 300
    model = GPT(GPTConfig())
    for step in range(STEPS):
        learning_rate(step, STEPS)
'''


def edited(*edits: tuple[str, str]) -> str:
    """Return the sample with each text replaced, which has to be there once."""
    code = TRAIN
    for search, replace in edits:
        assert code.count(search) == 1, search
        code = code.replace(search, replace)
    return code
