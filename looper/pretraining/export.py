"""A trained network in Hugging Face's format, and back."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from looper.models.nano.shape import Shape
from looper.pretraining.network import Network


def _pieces(shape: Shape) -> dict[str, tuple[str, int]]:
    """Return for every Qwen2 tensor of a layer the fused parameter that holds it and the row it starts at."""
    q, kv = shape.heads * shape.head, shape.kv_heads * shape.head
    pieces = {
        "input_layernorm.weight": ("norm1", 0),
        "post_attention_layernorm.weight": ("norm2", 0),
        "self_attn.o_proj.weight": ("out", 0),
        "mlp.gate_proj.weight": ("gate_up", 0),
        "mlp.up_proj.weight": ("gate_up", shape.ff),
        "mlp.down_proj.weight": ("down", 0),
    }
    for letter, start in (("q", 0), ("k", q), ("v", q + kv)):
        pieces[f"self_attn.{letter}_proj.weight"] = ("qkv", start)
        pieces[f"self_attn.{letter}_proj.bias"] = ("qkv_bias", start)
    return pieces


def _rows(shape: Shape, name: str) -> int:
    sizes = {"q": shape.heads * shape.head, "k": shape.kv_heads * shape.head, "v": shape.kv_heads * shape.head}
    if "gate_proj" in name or "up_proj" in name:
        return shape.ff
    return sizes[name.split(".")[1][0]] if name.startswith("self_attn") and "o_proj" not in name else shape.hidden


def views(network: Network) -> dict[str, Tensor]:
    """Return views of a network's weights under Qwen2's names."""
    own = dict(network.named_parameters())
    tensors = {"model.embed_tokens.weight": own["embed"].data, "model.norm.weight": own["norm"].data}
    for layer in range(network.shape.layers):
        for name, (source, start) in _pieces(network.shape).items():
            rows = _rows(network.shape, name)
            tensors[f"model.layers.{layer}.{name}"] = own[f"blocks.{layer}.{source}"].data[start : start + rows]
    return tensors


def save(network: Network, out: Path) -> None:
    """Write config.json and model.safetensors (bfloat16, tied embeddings stored once)."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {name: view.to(torch.bfloat16).contiguous() for name, view in views(network).items()}
    save_file(tensors, out / "model.safetensors.part", metadata={"format": "pt"})
    (out / "model.safetensors.part").replace(out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(network.shape.hf_config(), indent=2) + "\n", encoding="utf-8")


def load(network: Network, folder: Path) -> None:
    """Fill a network with the weights of a folder. Raises KeyError or RuntimeError if they do not fit."""
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    for name, view in views(network).items():
        view.copy_(stored[name])
