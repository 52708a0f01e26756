"""Adapters written into the weights of the model that they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from looper.errors import TrainingError
from looper.lora_files import CONFIG, PREFIX, WEIGHTS, beyond, scale_of


def plain_scale(folder: Path) -> float:
    """Return what an adapter multiplies B A with. Raises TrainingError if it is more than plain LoRA, or no adapter."""
    path = folder / CONFIG
    if not path.is_file():
        raise TrainingError(f"{folder} holds no adapter ({path.name} is missing); give a folder in PEFT's format")
    config = json.loads(path.read_text(encoding="utf-8"))
    if more := beyond(config):
        raise TrainingError(f"adapter {folder} has {more}; only plain LoRA, W + scale * B A, can be merged")
    return scale_of(config)


def factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (r, in) and B (out, r) of every layer of an adapter, in fp32, by the layer's name in PEFT's file.

    Raises TrainingError for a file that is unreadable, or holds more than plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(folder / WEIGHTS))
    except (SafetensorError, FileNotFoundError) as error:
        raise TrainingError(f"adapter {folder} is unreadable ({error}); delete it to train it again") from error
    layers = sorted({name.rsplit(".lora_", 1)[0] for name in tensors})
    wanted = {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    if set(tensors) != wanted:
        odd = sorted(set(tensors) ^ wanted)
        raise TrainingError(f"adapter {folder} has tensors that are no plain LoRA, or lacks some: {', '.join(odd[:3])}")
    return {
        layer: (tensors[f"{layer}.lora_A.weight"].float(), tensors[f"{layer}.lora_B.weight"].float())
        for layer in layers
    }


@torch.no_grad()
def merge(model: Any, folder: Path) -> None:
    """Add scale * B A to the weights of a base model: summed in fp32, kept in the precision of the weights.

    Raises TrainingError if the adapter is more than plain LoRA or belongs to another model.
    """
    scale = plain_scale(folder)
    for layer, (a, b) in factors(folder).items():
        try:
            weight = model.get_submodule(layer.removeprefix(PREFIX)).weight
        except AttributeError as error:
            raise TrainingError(f"adapter {folder} changes {layer}, which this model does not have") from error
        delta = b.to(weight.device) @ a.to(weight.device)  # (out, in)
        if delta.shape != weight.shape:
            raise TrainingError(
                f"adapter {folder} changes {layer} by {tuple(delta.shape)}, the model's weight is {tuple(weight.shape)}"
            )
        weight.copy_(weight.float() + scale * delta)
