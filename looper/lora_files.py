"""An adapter's files in PEFT's format: their names, whether they hold plain LoRA, its scale, and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looper.records import digest_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the base model's own names."""

BEYOND: Mapping[str, tuple[Any, str]] = {
    "use_dora": (False, "DoRA scales each row of the weights by a learned magnitude"),
    "rank_pattern": ({}, "layers have ranks of their own"),
    "alpha_pattern": ({}, "layers have scales of their own"),
    "modules_to_save": (None, "whole modules were trained"),
    "bias": ("none", "biases were trained"),
    "lora_bias": (False, "the adapter's matrices have biases"),
    "fan_in_fan_out": (False, "the base stores its matrices transposed"),
    "trainable_token_indices": (None, "embeddings of some tokens were trained"),
    "layer_replication": (None, "layers of the base are used more than once"),
    "target_parameters": (None, "parameters that are no linear layers were adapted"),
    "alora_invocation_tokens": (None, "the adapter is switched on by tokens"),
}
"""What makes an adapter more than plain LoRA: key -> harmless value, and what any other means."""

PLAIN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of PEFT's `init_lora_weights` that leave the base's weights as they are."""


def beyond(config: Mapping[str, Any]) -> str:
    """Return what makes an adapter more than W + scale * B A, as `use_dora=True: ...`; '' for plain LoRA."""
    if config.get("peft_type", "LORA") != "LORA":
        return f"peft_type={config['peft_type']!r}: it is no LoRA"
    for key, (plain, meaning) in BEYOND.items():
        value = config.get(key, plain)
        if value != plain and value:
            return f"{key}={value!r}: {meaning}"
    if (begun := config.get("init_lora_weights", True)) not in PLAIN_BEGINNINGS:
        return f"init_lora_weights={begun!r}: a part was taken out of the base's weights"
    return ""


def part_of(name: str) -> tuple[str, str] | None:
    """Return the module that a tensor of an adapter's file belongs to, and `A` or `B`; None if it is no LoRA matrix."""
    for part in ("A", "B"):
        ending = f".lora_{part}.weight"
        if name.startswith(PREFIX) and name.endswith(ending):
            return name.removeprefix(PREFIX).removesuffix(ending), part
    return None


def scale_of(config: Mapping[str, Any]) -> float:
    """Return what B A is multiplied with: alpha / rank, or alpha / sqrt(rank) where it is rank-stabilised."""
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def digest(folder: Path) -> str:
    """Return an adapter's identity, a function of weights and scale alone: runs and skills name it by this."""
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    scale = [settings.get(key) for key in ("r", "lora_alpha", "use_rslora")]
    return digest_of([hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(), scale])
