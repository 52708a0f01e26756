"""PEFT's adapter folder: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looper.errors import StoreError, TrainingError
from looper.lora_files import CONFIG, PREFIX, WEIGHTS, beyond, part_of, scale_of
from looper.training.formats.lora import Lora


def is_one(folder: Path) -> bool:
    """Return whether a folder holds an adapter in PEFT's format."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def read(folder: Path) -> Lora:
    """Read a plain LoRA adapter; a rank-stabilised scale is folded into the adapter's one.

    Raises StoreError for files that are missing or damaged, TrainingError for what is more than plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / WEIGHTS))
        rank, scale = int(config["r"]), scale_of(config)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(f"{folder} holds no readable adapter in PEFT's format: {error}") from error
    refuse(config, folder)
    factors = {}
    for name in sorted(tensors):
        module, part = _module(name, folder)
        other = f"{PREFIX}{module}.lora_{'B' if part == 'A' else 'A'}.weight"
        if other not in tensors:
            raise StoreError(f"{folder / WEIGHTS} has {name} but no {other}; write the adapter anew")
        if part == "A":
            factors[module] = (tensors[name], tensors[other])
    return Lora(
        rank=rank,
        scale=scale,
        factors=factors,
        dropout=float(config.get("lora_dropout") or 0.0),
        base=str(config.get("base_model_name_or_path") or ""),
    )


def refuse(config: Mapping[str, Any], folder: Path) -> None:
    """Raise TrainingError, naming the key, if an adapter is more than plain LoRA."""
    if more := beyond(config):
        raise TrainingError(
            f"{folder} has {more}; only PEFT itself can hold that: merge it into its base with PEFT's "
            "merge_and_unload, or train plain LoRA"
        )


def _module(name: str, folder: Path) -> tuple[str, str]:
    if (found := part_of(name)) is None:
        raise TrainingError(
            f"{folder / WEIGHTS} holds {name}, which is no LoRA matrix; only plain LoRA can be converted"
        )
    return found


def write(lora: Lora, folder: Path) -> None:
    """Write an adapter; a scale whose alpha is no whole number is folded into B, since alpha is an integer here."""
    from safetensors.torch import save_file

    alpha, factors = lora.alpha, lora.factors
    if alpha != int(alpha):
        factors = {name: (a, b * lora.scale) for name, (a, b) in factors.items()}
        alpha = float(lora.rank)
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.contiguous()
    config = {
        "base_model_name_or_path": lora.base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha),
        "lora_dropout": lora.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": _targets(lora),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _targets(lora: Lora) -> list[str]:
    """Return module names as PEFT matches them: last parts where these mean all and only the adapted layers."""
    ends: dict[str, set[str]] = {}
    for name in lora.factors:
        ends.setdefault(name.rsplit(".", 1)[-1], set()).add(name)
    even = {len(names) for names in ends.values()} == {len(lora.layers)} and lora.layers == tuple(
        range(len(lora.layers))
    )
    return sorted(ends) if even else sorted(lora.factors)
