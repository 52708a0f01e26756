"""A model of mlx-lm in memory, and LoRA matrices around its linear layers; for what runs it and for what trains it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load_model


def load(folder: Path, dtype: mx.Dtype) -> Any:
    """Return a folder's model, for inference, with weights (those that are not quantised) in `dtype`.

    Raises ValueError or FileNotFoundError where mlx-lm cannot load it.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    # mlx-lm looks for rope_theta at the top only, and silently takes another value where it is nested.
    nested = (config.get("rope_parameters") or {}).get("rope_theta")
    model: Any = load_model(folder, model_config={"rope_theta": nested} if nested else None)[0]
    model.set_dtype(dtype)
    model.eval()
    return model


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers, quantised ones too, by their names."""
    kinds = nn.Linear | nn.QuantizedLinear
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def size(layer: Any) -> tuple[int, int]:
    """Return a linear layer's numbers of outputs and inputs."""
    outputs, inputs = layer.weight.shape
    return outputs, inputs * 32 // layer.bits if isinstance(layer, nn.QuantizedLinear) else inputs


def around(inner: Any, lora_a: mx.array, lora_b: mx.array, scale: float) -> LoRALinear:
    """Return the matrices (in, r) and (r, out) around a linear layer, or around what already stands around one.

    Nothing is merged: bfloat16 and quantised weights would round most of an adapter's change away.
    """
    layer = LoRALinear(lora_a.shape[0], lora_b.shape[1], r=lora_a.shape[1], scale=scale)
    layer.linear, layer.lora_a, layer.lora_b = inner, lora_a, lora_b
    return layer


def put(model: Any, places: Mapping[str, Any], names: Iterable[str]) -> None:
    """Put what stands at the places of the named layers into the model."""
    model.update_modules(tree_unflatten([(name, places[name]) for name in names]))
