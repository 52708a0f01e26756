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
SPLIT = int(os.environ.get("RESEARCH_SPLIT", 0))
"""Which files are held out for validation; every number is a split of its own."""
SEALED = os.environ.get("RESEARCH_SEALED", "")
"""Folder of a judged run: it has the training windows of the budget and takes the model; empty in a run of your own."""

VALIDATION_SHARE = 0.1
VALIDATION_WINDOWS = 1024
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}


class Corpus(NamedTuple):
    """The two splits as one-dimensional tensors of bytes."""

    train: Tensor
    validation: Tensor
    digest: str
    """SHA-256 over the digests of all files, in order."""


def sources() -> Iterator[tuple[str, str, bytes]]:
    """Read the standard library's sources, without its tests and what a build wrote for one machine.

    Gives the path in the library, the digest and the bytes of each.
    """
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not LEFT_OUT.intersection(inside.parts) and not path.name.startswith("_sysconfigdata"):
            text = path.read_bytes()
            yield inside.as_posix(), hashlib.sha256(text).hexdigest(), text


def is_held_out(key: str, split: int) -> bool:
    """Whether the file of this digest is in a split's validation half."""
    drawn = hashlib.sha256(f"{split}:{key}".encode()).hexdigest() if split else key
    return int(drawn[:8], 16) < VALIDATION_SHARE * 2**32


@cache
def corpus(split: int = SPLIT) -> Corpus:
    """Read the two halves of a split. Raises ValueError in a judged run, which has the training windows alone."""
    if SEALED:
        raise ValueError("a judged run has no corpus; read the data with batches()")
    texts = {key: text for _, key, text in sources()}
    held_out = [key for key in texts if is_held_out(key, split)]
    parts = [b"\0".join(texts[key] for key in keys) for keys in (sorted(texts.keys() - held_out), sorted(held_out))]
    train, validation = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    return Corpus(train, validation, hashlib.sha256("".join(sorted(texts)).encode()).hexdigest())


def drawn(data: Tensor, seed: int, size: int) -> Iterator[Tensor]:
    """Draw windows of the training half without end, `size` at a time: (B, T + 1). Any size gives the same order."""
    draw, reach = torch.Generator().manual_seed(seed), torch.arange(CONTEXT + 1)
    while True:
        yield data[torch.randint(len(data) - CONTEXT, (size, 1), generator=draw) + reach]


def batches(size: int, *, seed: int = SEED, budget: int = TOKEN_BUDGET) -> Iterator[tuple[Tensor, Tensor]]:
    """Give training batches until the budget of tokens is spent: inputs and the tokens after them, both (B, T)."""
    stream = iter(torch.split(windows(), size)) if SEALED else drawn(corpus().train, seed, size)
    for _, window in zip(range(budget // (size * CONTEXT)), stream, strict=False):
        rows = window.long()  # (B, T + 1)
        yield rows[:, :-1], rows[:, 1:]


@cache
def windows() -> Tensor:
    """Read the windows that a judged run was given, in the order in which they were drawn: (N, T + 1)."""
    data = Path(SEALED, "windows.bin").read_bytes()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, CONTEXT + 1)


def validation_rows(split: int = SPLIT) -> Tensor:
    """Return the windows that are scored, (N, T + 1)."""
    data = corpus(split).validation
    starts = torch.linspace(0, len(data) - CONTEXT - 1, VALIDATION_WINDOWS).long()
    return data[starts[:, None] + torch.arange(CONTEXT + 1)].long()


@torch.no_grad()
def evaluate_bpb(logits: Callable[[Tensor], Tensor], size: int = 128, *, split: int = SPLIT) -> float:
    """Return the bits per byte of the validation split under `logits`: tokens (B, T) to scores (B, T, V).

    A judged run has no validation data: there the model is handed over, to be scored elsewhere, and the answer is nan.
    """
    if SEALED:
        hand_over(logits)
        return math.nan
    rows = validation_rows(split)
    nats = 0.0
    for first in range(0, VALIDATION_WINDOWS, size):
        x, y = rows[first : first + size, :-1], rows[first : first + size, 1:]
        scores = logits(x)
        if scores.shape != (*x.shape, VOCABULARY):
            raise ValueError(f"logits have shape {tuple(scores.shape)}; it has to be {(*x.shape, VOCABULARY)}")
        nats += F.cross_entropy(scores.double().flatten(0, 1), y.flatten(), reduction="sum").item()
    return nats / (math.log(2) * rows[:, 1:].numel())


def hand_over(model: object) -> None:
    """Save a model's weights for the judge, who loads them into `GPT(GPTConfig())`. Raises TypeError for no model."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"evaluate_bpb got {type(model).__name__}; in a judged run it takes the model, a torch module")
    torch.save(model.state_dict(), Path(SEALED, "model.pt"))
