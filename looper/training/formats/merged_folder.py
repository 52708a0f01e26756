"""A base model with an adapter added to its weights, as a plain Hugging Face folder; one shard in memory at a time."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.errors import StoreError, TrainingError
from looper.training.formats.lora import Lora
from looper.training.formats.targets import Precision

if TYPE_CHECKING:
    from torch import Tensor

KEPT = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of the base's files that belong to the model: configuration, tokenizer, licence."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What a merge did."""

    layers: int
    dtype: str
    """What the changed weights are stored in."""
    lost: float
    """Norm of what rounding to the stored precision took, as a share of the norm of the adapter's change."""


def write(lora: Lora, folder: Path, *, base: Path, precision: Precision = Precision.base) -> Merge:
    """Write W + scale * B A, computed in float32, and everything else of the base as it is.

    Raises StoreError for a base without safetensors, TrainingError for one that is quantised or lacks a layer.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    shards = sorted(base.glob("*.safetensors"))
    if not shards:
        raise StoreError(f"{base} has no *.safetensors; give the folder of the base model's weights as --base")
    config = _config(base, lora, precision)
    folder.mkdir(parents=True, exist_ok=True)
    left, change, error = dict(lora.factors), 0.0, 0.0
    kinds: set[str] = set()
    for shard in shards:
        with safe_open(str(shard), framework="pt") as opened:
            metadata = opened.metadata() or {"format": "pt"}
        tensors = load_file(str(shard))
        for name in tensors:
            module = name.removesuffix(".weight")
            if module in left:
                tensors[name], moved, off = _merged(tensors[name], *left.pop(module), lora.scale, precision)
                change, error = change + moved, error + off
                kinds.add(str(tensors[name].dtype).removeprefix("torch."))
            elif precision is Precision.float32 and tensors[name].is_floating_point():
                tensors[name] = tensors[name].to(torch.float32)
        save_file(tensors, str(folder / shard.name), metadata=metadata)
    if left:
        raise TrainingError(f"{base} has no weights for {min(left)}, which the adapter changes; give the right base")
    for path in sorted(base.iterdir()):
        if (path.is_file() and path.suffix in KEPT and path.name != "config.json") or path.name == "LICENSE":
            shutil.copyfile(path, folder / path.name)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    lost = math.sqrt(error / change) if change else 0.0
    return Merge(layers=len(lora.factors), dtype=" and ".join(sorted(kinds)), lost=lost)


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, precision: Precision) -> tuple[Tensor, float, float]:
    """Return the new weight, and the squared norms of the change and of what rounding took of it."""
    import torch

    if not weight.is_floating_point():
        raise TrainingError(f"the base's weights are {weight.dtype}: quantised; merge into its unquantised original")
    delta = scale * (b.float() @ a.float())  # (out, in)
    exact = weight.float() + delta
    stored = exact.to(torch.float32 if precision is Precision.float32 else weight.dtype)
    return stored, float(delta.double().square().sum()), float((stored.float() - exact).double().square().sum())


def _config(base: Path, lora: Lora, precision: Precision) -> Mapping[str, Any]:
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config") or config.get("quantization"):
        raise TrainingError(f"{base} is quantised, and rounding would erase the adapter; give its unquantised original")
    if config.get("tie_word_embeddings") and any(name.endswith(("lm_head", "embed_tokens")) for name in lora.factors):
        raise TrainingError(
            "the adapter changes the output layer, which this base shares with its embeddings: merging would change "
            "both; train without lm_head and embed_tokens"
        )
    nested = (config.get("rope_parameters") or {}).get("rope_theta")
    if nested is not None:
        config["rope_theta"] = nested  # older readers look for it here and silently take another value without it
    if precision is Precision.float32:
        config["dtype"] = "float32"
        if "torch_dtype" in config:
            config["torch_dtype"] = "float32"
    return config
