"""Data and score of the task: bytes of Python's standard library, split by file, in bits per byte. Do not change.

The corpus is the source of the Python that runs this, always at hand; its digest belongs beside every score, as another
release of Python holds other files. A file belongs to the validation split if the digest of its text says so, and so do
all copies of it.
"""

from __future__ import annotations

import hashlib
import math
import os
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

VOCABULARY = 256
"""A token is a byte."""
CONTEXT = 64
"""Tokens that the model sees, in training and when it is scored."""
TOKEN_BUDGET = int(os.environ.get("RESEARCH_TOKENS", 300 * 8 * CONTEXT))
"""Training tokens; `batches` gives no more than these, in whatever steps."""
SEED = int(os.environ.get("RESEARCH_SEED", 1))
"""Decides the initial weights and the order of the data."""

VALIDATION_SHARE = 0.1
VALIDATION_WINDOWS = 1024
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}


class Corpus(NamedTuple):
    """The two splits as one-dimensional tensors of bytes."""

    train: Tensor
    validation: Tensor
    digest: str
    """SHA-256 over the digests of all files, in order."""


@cache
def corpus() -> Corpus:
    """Read the standard library's sources, without its tests and what a build wrote for one machine."""
    root = Path(sysconfig.get_path("stdlib"))
    texts: dict[str, bytes] = {}
    for path in sorted(root.rglob("*.py")):
        if not LEFT_OUT.intersection(path.relative_to(root).parts) and not path.name.startswith("_sysconfigdata"):
            text = path.read_bytes()
            texts[hashlib.sha256(text).hexdigest()] = text
    held_out = [key for key in texts if int(key[:8], 16) < VALIDATION_SHARE * 2**32]
    parts = [b"\0".join(texts[key] for key in keys) for keys in (sorted(texts.keys() - held_out), sorted(held_out))]
    train, validation = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    return Corpus(train, validation, hashlib.sha256("".join(sorted(texts)).encode()).hexdigest())


def batches(size: int, *, seed: int = SEED, budget: int = TOKEN_BUDGET) -> Iterator[tuple[Tensor, Tensor]]:
    """Give training batches until the budget of tokens is spent: inputs and the tokens after them, both (B, T)."""
    data, draw = corpus().train, torch.Generator().manual_seed(seed)
    reach = torch.arange(CONTEXT + 1)
    for _ in range(budget // (size * CONTEXT)):
        starts = torch.randint(len(data) - CONTEXT, (size, 1), generator=draw)
        rows = data[starts + reach].long()  # (B, T + 1)
        yield rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def evaluate_bpb(logits: Callable[[Tensor], Tensor], size: int = 128) -> float:
    """Return the bits per byte of the validation split under `logits`: tokens (B, T) to scores (B, T, V)."""
    data = corpus().validation
    starts = torch.linspace(0, len(data) - CONTEXT - 1, VALIDATION_WINDOWS).long()
    rows = data[starts[:, None] + torch.arange(CONTEXT + 1)].long()
    nats = 0.0
    for first in range(0, VALIDATION_WINDOWS, size):
        x, y = rows[first : first + size, :-1], rows[first : first + size, 1:]
        scores = logits(x)
        if scores.shape != (*x.shape, VOCABULARY):
            raise ValueError(f"logits have shape {tuple(scores.shape)}; it has to be {(*x.shape, VOCABULARY)}")
        nats += F.cross_entropy(scores.double().flatten(0, 1), y.flatten(), reduction="sum").item()
    return nats / (math.log(2) * rows[:, 1:].numel())
