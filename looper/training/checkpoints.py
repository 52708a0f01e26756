"""The state of a training on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LOG = logging.getLogger(__name__)

STATE = "state.pt"
"""Name of the file in the folder of an unfinished training."""


@dataclass(kw_only=True)
class Progress:
    """How far a training is."""

    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Finished batches of the epoch under way."""
    step: int = 0
    """Steps taken in all."""
    loss: float = 0.0
    """Sum over the epoch under way of loss times mass."""
    mass: float = 0.0
    penalty: float = 0.0
    """Sum over the epoch under way of the penalty without its factor."""
    best: float = float("inf")
    """Lowest held-out loss so far."""
    waited: int = 0
    """Epochs since then."""
    seconds: float = 0.0
    """Time spent by processes that were killed."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A row for every finished epoch."""


def save(
    folder: Path, inputs: str, progress: Progress, parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """Write the state of a training with torch into its folder."""
    state = {
        "parameters": [p.detach().cpu() for p in parameters],
        "optimiser": optimiser.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    write(folder, inputs, progress, state)


def write(folder: Path, inputs: str, progress: Progress, state: Mapping[str, Any]) -> None:
    """Write a state, plain values and tensors, into a training's folder; a kill leaves the last one whole."""
    fresh = folder / f"{STATE}.new"
    torch.save({**state, "inputs": inputs, "progress": dataclasses.asdict(progress)}, fresh)
    fresh.replace(folder / STATE)


def clear(folder: Path) -> None:
    """Remove the state of a training that is done, and half of one that a kill may have left."""
    for name in (STATE, f"{STATE}.new"):
        (folder / name).unlink(missing_ok=True)


def matching(folder: Path, inputs: str) -> dict[str, Any] | None:
    """Return the state of an unfinished training of the very same inputs; None if there is none that can be read."""
    path = folder / STATE
    if not path.is_file():
        return None
    if not zipfile.is_zipfile(path):  # half of one has no directory
        LOG.warning("%s is damaged; training starts anew", path)
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        LOG.warning("%s is unreadable (%s); training starts anew", path, error)
        return None
    return state if state.get("inputs") == inputs else None


@torch.no_grad()
def restore(state: dict[str, Any], parameters: Sequence[Tensor], optimiser: torch.optim.Optimizer) -> Progress:
    """Put parameters, optimiser and random streams into a stored state and return how far it is."""
    for parameter, stored in zip(parameters, state["parameters"], strict=True):
        parameter.copy_(stored)
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return Progress(**state["progress"])
