"""Routing without training: each expert's weights say which inputs it answers to (Arrow, Ostapenko et al. 2024).

The prototype v of an expert in a module is the top right singular vector of its B A, the direction of
input that it changes most; an expert's score for an input x is |v^T x|. PEFT's version weighs anew for
every token in every module; here a session's experts are fixed: the score is the mean over the tokens of
the first user message and over all adapted modules, as the bare base model computes their inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from looper.errors import TrainingError
from looper.lora_files import PREFIX, WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor


def prototypes(experts: Sequence[Path]) -> dict[str, Tensor]:
    """Return `arrow.MODULE` (E, in) for each module that the adapters (folders in PEFT's format) adapt.

    Raises TrainingError if they do not adapt the same modules.
    """
    import torch
    from safetensors.torch import load_file

    found: dict[str, list[Tensor]] = {}
    for folder in experts:
        lora = load_file(str(folder / WEIGHTS))
        for name in sorted(lora):
            if name.endswith(".lora_A.weight"):
                module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
                a, b = lora[name].float(), lora[name.replace(".lora_A.", ".lora_B.")].float()
                found.setdefault(f"arrow.{module}", []).append(top_right(a, b))
    if uneven := [name for name, rows in found.items() if len(rows) != len(experts)]:
        raise TrainingError(f"only some experts adapt {uneven[0]}; give strategy.fresh=true to train them alike")
    return {name: torch.stack(rows) for name, rows in found.items()}


def top_right(a: Tensor, b: Tensor) -> Tensor:
    """Return the top right singular vector of B A, (in,), by the small core of QR(B) and QR(A^T)."""
    import torch

    q, r = torch.linalg.qr(a.double().t())  # (in, rank), (rank, rank)
    core = torch.linalg.qr(b.double()).R @ r.t()
    vector = q @ torch.linalg.svd(core).Vh[0]
    sign = vector[vector.abs().argmax()].sign()  # a singular vector's sign is arbitrary: this one is repeatable
    found: Tensor = (vector * sign).float()
    return found
