"""mlx-lm's adapter folder: `adapters.safetensors` and an `adapter_config.json` of its own.

mlx-lm keeps both matrices transposed (`lora_a` (in, r), `lora_b` (r, out)) and multiplies their product with `scale`
as it stands: PEFT's alpha / r, not its alpha.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from looper.errors import StoreError, TrainingError
from looper.records import digest_of
from looper.training.formats.lora import Lora

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"


def is_one(folder: Path) -> bool:
    """Return whether a folder holds an adapter in mlx-lm's format."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def digest(folder: Path) -> str:
    """Return the adapter's identity, a function of weights and settings."""
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("lora_parameters")
    return digest_of([hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(), settings])


def write(lora: Lora, folder: Path, *, base: Path) -> None:
    """Write an adapter for the base model whose folder is `base`.

    Raises TrainingError for a module outside of the transformer blocks, or blocks that the base lacks.
    """
    from safetensors.torch import save_file

    keys = lora.inner_paths("mlx-lm's format")
    there = int(json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"])
    if max(lora.layers) >= there:
        raise TrainingError(f"the adapter is for block {max(lora.layers)}, but {base} has only {there} from 0 on")
    config = {
        "fine_tune_type": "lora",
        "model": lora.base,
        "num_layers": there - min(lora.layers),  # counted from the top; layers without matrices get zeros
        "lora_parameters": {
            "rank": lora.rank,
            "scale": lora.scale,
            "dropout": lora.dropout,
            "keys": list(keys),
        },
    }
    tensors = {}
    for name, (a, b) in lora.factors.items():
        tensors[f"{name}.lora_a"] = a.T.contiguous()
        tensors[f"{name}.lora_b"] = b.T.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "mlx"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(folder: Path) -> Lora:
    """Read an adapter. Raises StoreError for damaged files, TrainingError for a type that is not plain LoRA."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / WEIGHTS))
        kind = config.get("fine_tune_type", "lora")
        settings = config["lora_parameters"] if kind == "lora" else {}
        rank, scale = (int(settings["rank"]), float(settings["scale"])) if kind == "lora" else (0, 0.0)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"{folder} holds no readable adapter in mlx-lm's format: {error}") from error
    if kind != "lora":
        raise TrainingError(f"{folder} has fine_tune_type={kind!r}; only 'lora' can be converted")
    factors = {}
    for name in sorted(tensors):
        module, _, part = name.rpartition(".")
        if part not in ("lora_a", "lora_b"):
            raise TrainingError(f"{folder / WEIGHTS} holds {name}, which is no LoRA matrix; only plain LoRA converts")
        other = f"{module}.{'lora_b' if part == 'lora_a' else 'lora_a'}"
        if other not in tensors:
            raise StoreError(f"{folder / WEIGHTS} has {name} but no {other}; write the adapter anew")
        if part == "lora_a":
            factors[module] = (tensors[name].T.contiguous(), tensors[other].T.contiguous())
    return Lora(
        rank=rank,
        scale=scale,
        factors=factors,
        dropout=float(settings.get("dropout") or 0.0),
        base=str(config.get("model") or ""),
    )
