"""llama.cpp's LoRA adapter: one GGUF file whose tensors bear llama.cpp's names.

Only models whose matrices llama.cpp stores as they are; it permutes the query and key rows of some others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from looper.errors import MachineError, StoreError, TrainingError
from looper.records import digest_of
from looper.training.formats.lora import LAYER, Lora

FILE = "adapter.gguf"

ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3"}
"""transformers' model_type -> llama.cpp's architecture, for models whose matrices are stored unchanged."""

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Path of a module inside its block -> llama.cpp's name."""


def is_one(folder: Path) -> bool:
    """Return whether a folder holds an adapter as `write` leaves it."""
    return (folder / FILE).is_file()


def digest(folder: Path) -> str:
    """Return the adapter's identity, a function of the file."""
    return digest_of([hashlib.sha256((folder / FILE).read_bytes()).hexdigest()])


def write(lora: Lora, folder: Path, *, base: Path) -> None:
    """Write `adapter.gguf` in float32.

    Raises MachineError without the gguf library, TrainingError for an architecture or a layer that cannot be held.
    """
    import torch

    try:
        import gguf
    except ImportError as error:
        raise MachineError("--to gguf needs the library: pip install 'looper[gguf]'") from error
    kind = str(json.loads((base / "config.json").read_text(encoding="utf-8")).get("model_type"))
    if kind not in ARCHITECTURES:
        raise TrainingError(f"model_type {kind!r} cannot be exported to GGUF; this writes {', '.join(ARCHITECTURES)}")
    names = {module: tensor_name(module) for module in lora.factors}
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(folder / FILE), ARCHITECTURES[kind])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", lora.alpha)  # llama.cpp divides it by the rank itself
    for module, (a, b) in lora.factors.items():
        writer.add_tensor(f"{names[module]}.lora_a", a.to(torch.float32).contiguous().numpy())
        writer.add_tensor(f"{names[module]}.lora_b", b.to(torch.float32).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_name(module: str) -> str:
    """Return llama.cpp's name of a module's weight. Raises TrainingError for a layer that it does not know."""
    match = LAYER.fullmatch(module)
    if match is None or match[3] not in NAMES:
        raise TrainingError(f"{module} cannot be exported to GGUF; it takes {', '.join(NAMES)} of the blocks")
    return f"blk.{match[2]}.{NAMES[match[3]]}.weight"


def read(path: Path) -> Lora:
    """Read an adapter back; the file does not name its base model.

    Raises MachineError without the gguf library, StoreError for a file that is no adapter, TrainingError for an
    architecture whose matrices llama.cpp permutes.
    """
    import torch

    try:
        import gguf
    except ImportError as error:
        raise MachineError("reading GGUF needs the library: pip install 'looper[gguf]'") from error
    try:
        reader = gguf.GGUFReader(str(path))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is no readable GGUF file: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if (fields.get("general.type"), fields.get("adapter.type")) != ("adapter", "lora"):
        raise StoreError(f"{path} is a GGUF file, but no LoRA adapter; give the file of an adapter")
    if (kind := fields.get("general.architecture")) not in ARCHITECTURES.values():
        known = ", ".join(ARCHITECTURES.values())
        raise TrainingError(f"{path} is for the architecture {kind!r}; adapters are read for {known}")
    modules = {short: inner for inner, short in NAMES.items()}
    pieces: dict[str, dict[str, torch.Tensor]] = {}
    try:
        for tensor in reader.tensors:
            _, layer, short, _, part = tensor.name.split(".")
            value = torch.from_numpy(tensor.data.copy())
            pieces.setdefault(f"model.layers.{layer}.{modules[short]}", {})[part] = value
        factors = {name: (pair["lora_a"], pair["lora_b"]) for name, pair in pieces.items()}
        rank = int(next(iter(factors.values()))[0].shape[0])
        scale = float(fields["adapter.lora.alpha"]) / rank
    except (ValueError, KeyError, StopIteration) as error:
        raise StoreError(f"{path} holds other tensors than a LoRA adapter of {', '.join(NAMES)} ({error!r})") from error
    return Lora(rank=rank, scale=scale, factors=factors)
