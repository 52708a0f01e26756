"""The router of a mixture: a small network from a query's embedding to the weights of the experts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from looper.errors import StoreError
from looper.learning.categories import Categories, Points
from looper.records import Router, digest_of

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 5
"""Parts of the tasks that take turns in measuring the router."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a router is trained."""

    hidden: int
    steps: int
    lr: float
    balance: float
    top_k: int
    seed: int


def train(points: Points, labels: NDArray[np.int64], experts: int, settings: Settings) -> dict[str, Tensor]:
    """Return the weights of an MLP (D -> hidden, ReLU, -> E) that names the expert of standardised embeddings (N, D).

    loss = cross-entropy + balance * E * sum_e f_e P_e, f the share of queries whose likeliest expert is e and P the
    mean of its probability (Fedus et al. 2021, Switch Transformers, equation 4): 1 where all are used alike.
    """
    import torch
    import torch.nn.functional as F

    with _reproducible(settings.seed):
        x, y = torch.from_numpy(points), torch.from_numpy(labels)
        first, second = torch.nn.Linear(x.shape[1], settings.hidden), torch.nn.Linear(settings.hidden, experts)
        weights = [first.weight, first.bias, second.weight, second.bias]
        optimiser = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=0.01)
        for _ in range(settings.steps if experts > 1 else 0):
            logits = second(torch.relu(first(x)))
            shares = torch.softmax(logits, -1)
            used = F.one_hot(shares.argmax(-1), experts).float().mean(0)
            loss = F.cross_entropy(logits, y) + settings.balance * experts * torch.dot(used, shares.mean(0))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    names = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
    return {name: tensor.detach().contiguous() for name, tensor in zip(names, weights, strict=True)}


def shares(tensors: Mapping[str, Tensor], points: Points, top_k: int) -> NDArray[np.float32]:
    """Return the experts' weights for standardised embeddings (N, D): the softmax of the `top_k` highest, (N, E)."""
    hidden = np.maximum(points @ tensors["hidden.weight"].numpy().T + tensors["hidden.bias"].numpy(), 0.0)
    logits = hidden @ tensors["output.weight"].numpy().T + tensors["output.bias"].numpy()
    order = np.argsort(-logits, axis=1, kind="stable")
    np.put_along_axis(logits, order[:, top_k:], -np.inf, axis=1)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    found: NDArray[np.float32] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return found


def accuracy(points: Points, labels: NDArray[np.int64], experts: int, settings: Settings) -> float | None:
    """Return the share of queries whose expert a router names that was trained without them; None for too few."""
    if len(labels) < FOLDS or experts < 2:
        return None
    folds = np.random.default_rng(settings.seed).permutation(len(labels)) % FOLDS
    hits = 0
    for fold in range(FOLDS):
        trained = train(points[folds != fold], labels[folds != fold], experts, settings)
        hits += int((shares(trained, points[folds == fold], 1).argmax(1) == labels[folds == fold]).sum())
    return hits / len(labels)


def usage(weights: NDArray[np.float32]) -> dict[str, Any]:
    """Return how weights (N, E) use the experts: each one's mean, and two entropies in nats.

    `entropy` is the mean over queries (0: one expert each), `usage_entropy` that of the mean (log E: all alike).
    """
    mean = weights.mean(0)
    return {
        "usage": [round(float(share), 6) for share in mean],
        "entropy": float(_entropy(weights).mean()),
        "usage_entropy": float(_entropy(mean[None])[0]),
    }


def _entropy(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = weights.astype(np.float64)
    found: NDArray[np.float64] = 0.0 - (exact * np.log(np.maximum(exact, 1e-30))).sum(1)
    return found


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """One thread, and a seed that leaves the caller's random state alone."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def save(
    folder: Path, kind: str, tensors: Mapping[str, Tensor], categories: Categories, *, top_k: int, temperature: float
) -> Router:
    """Write router.safetensors and router.json, the same bytes for the same router, and return its record."""
    import torch
    from safetensors.torch import save as packed

    arrays = {"mean": categories.mean, "scale": categories.scale, "centres": categories.centres}
    content = packed({**{name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, **tensors})
    settings = {
        "kind": kind,
        "top_k": top_k,
        "temperature": temperature,
        "tasks": dict(categories.tasks),
        "families": list(categories.families),
        "ranks": list(categories.ranks),
    }
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("router.safetensors", content), ("router.json", text.encode())):
        part = folder / f"{name}.{os.getpid()}.part"
        part.write_bytes(data)
        part.replace(folder / name)  # another job of a sweep may write the very same file
    return Router(path=str(folder), digest=digest_of([hashlib.sha256(content).hexdigest(), settings]))


def load(folder: Path) -> Categories:
    """Read the categories of a router's folder. Raises StoreError if they are unreadable."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        settings = json.loads((folder / "router.json").read_text(encoding="utf-8"))
        arrays = load_file(str(folder / "router.safetensors"))
        return Categories(
            mean=arrays["mean"],
            scale=arrays["scale"],
            centres=arrays["centres"],
            tasks=settings["tasks"],
            families=tuple(settings["families"]),
            ranks=tuple(settings["ranks"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"the router in {folder} is unreadable ({error!r}); give strategy.fresh=true") from error
