"""Weights of the bundled model: read from safetensors, adapters merged, laid out for the engine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from looper.errors import ModelError
from looper.lora_files import CONFIG, PREFIX, WEIGHTS, beyond, scale_of
from looper.models.nano.product import Product
from looper.models.nano.shape import Shape


@dataclass(frozen=True)
class Layer:
    """One transformer block, ready to multiply, its norms folded in."""

    qkv: Product  # D -> D + 2 * KV
    out: Product  # D -> D
    gate_up: Product  # D -> 2 * F
    down: Product  # F -> D


@dataclass(frozen=True)
class Weights:
    """All weights in fp32."""

    shape: Shape
    embedding: Tensor  # (V, D)
    head: Product  # D -> V, the final norm folded in
    layers: tuple[Layer, ...]


def read(folder: Path) -> tuple[Shape, dict[str, Tensor]]:
    """Read config.json and model.safetensors; the tensors keep their names and become fp32.

    Raises ModelError if the tensors are not those that the config describes.
    """
    shape = Shape.from_hf_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    tensors = {name: tensor.float() for name, tensor in load_file(str(folder / "model.safetensors")).items()}
    tensors.pop("lm_head.weight", None)  # tied: the embedding, once more
    expected = {"model.embed_tokens.weight", "model.norm.weight"}
    for i in range(shape.layers):
        expected |= {f"model.layers.{i}.{part}" for part in PARTS}
    if wrong := sorted(expected ^ tensors.keys()):
        raise ModelError(f"{folder / 'model.safetensors'} does not fit its config.json: {wrong[0]} is missing or extra")
    embedding = tuple(tensors["model.embed_tokens.weight"].shape)
    if embedding != (shape.vocab, shape.hidden):
        raise ModelError(f"the embedding is {embedding} but config.json says {(shape.vocab, shape.hidden)}")
    return shape, tensors


PARTS = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    *(f"self_attn.{p}_proj.{kind}" for p in "qkv" for kind in ("weight", "bias")),
    "self_attn.o_proj.weight",
    *(f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")),
)
"""Tensors of one block, by their names in the Hugging Face format."""


class LowRank(NamedTuple):
    """What an adapter adds to one matrix: scaling * B @ A."""

    target: str
    """Name of the tensor that it belongs to."""
    scaling: float
    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)


def low_rank(tensors: dict[str, Tensor], folder: Path) -> Iterator[LowRank]:
    """Yield the terms of a LoRA adapter (a folder in PEFT's format), in fp32, by name.

    Raises ModelError for adapters that are more than a low-rank sum (DoRA, per-layer ranks, saved modules, PiSSA).
    """
    scaling = _scaling(folder)
    lora = load_file(str(folder / WEIGHTS))
    for name in sorted(lora):
        target = name.removeprefix(PREFIX).removesuffix(".lora_A.weight") + ".weight"
        if name.endswith(".lora_B.weight"):
            continue
        other = name.replace(".lora_A.", ".lora_B.")
        if not name.endswith(".lora_A.weight") or other not in lora or target not in tensors:
            raise ModelError(f"adapter {folder} holds {name}, which is not a LoRA matrix of this model's layers")
        yield LowRank(target, scaling, lora[name].float(), lora[other].float())


def merge(tensors: dict[str, Tensor], adapters: Sequence[Path], *, scale: float = 1.0) -> None:
    """Add LoRA adapters to the weights, in place: W += scale * scaling * B @ A. Raises ModelError like `low_rank`."""
    for folder in adapters:
        for term in low_rank(tensors, folder):
            tensors[term.target] += scale * term.scaling * (term.b @ term.a)


def _scaling(folder: Path) -> float:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if more := beyond(config):
        raise ModelError(f"adapter {folder} has {more}; only plain LoRA can be merged")
    return scale_of(config)


def turned(shape: Shape, x: Tensor) -> Tensor:
    """Interleave the halves of each head in rows (heads * H, ...): 0, H / 2, 1, H / 2 + 1, ..."""
    pairs = torch.arange(shape.head).view(2, shape.head // 2).t().reshape(-1)
    return x.view(-1, shape.head, *x.shape[1:])[:, pairs].reshape(x.shape)


def queries(shape: Shape, x: Tensor) -> Tensor:
    """Interleave the rows of queries and put the attention's scale, in bits, into them."""
    scale: float = shape.head**-0.5 * math.log2(math.e)
    return turned(shape, x) * scale


def arrange(shape: Shape, tensors: dict[str, Tensor]) -> Weights:
    """Lay the weights out for few, large operations.

    Norm weights go into the matrices that follow them, and the attention's scale into the queries, in
    units of bits: exp2 is many times faster than exp, above all where it underflows. The halves of each
    query and key head are interleaved, so that a rotation is one complex product; both sides of the dot
    product are permuted alike, which changes nothing.
    """
    layers = []
    for i in range(shape.layers):
        block = {part: tensors[f"model.layers.{i}.{part}"] for part in PARTS}
        q, k, v = (block[f"self_attn.{p}_proj.weight"] for p in "qkv")
        qb, kb, vb = (block[f"self_attn.{p}_proj.bias"] for p in "qkv")
        qkv = torch.cat([queries(shape, q), turned(shape, k), v]) * block["input_layernorm.weight"]
        gate_up = torch.cat([block["mlp.gate_proj.weight"], block["mlp.up_proj.weight"]])
        layers.append(
            Layer(
                qkv=Product(qkv, torch.cat([queries(shape, qb), turned(shape, kb), vb])),
                out=Product(block["self_attn.o_proj.weight"]),
                gate_up=Product(gate_up * block["post_attention_layernorm.weight"]),
                down=Product(block["mlp.down_proj.weight"]),
            )
        )
    embedding = tensors["model.embed_tokens.weight"]
    head = Product(embedding * tensors["model.norm.weight"])
    return Weights(shape=shape, embedding=embedding, head=head, layers=tuple(layers))
