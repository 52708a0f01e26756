"""Identity of a trained adapter."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from looper.errors import StoreError
from looper.records import Adapter, digest_of


def adapter_at(folder: Path, base: str) -> Adapter:
    """Return the record of the adapter in a folder, its digest a function of weights and scale only.

    Raises StoreError if the folder holds no readable adapter in PEFT's format.
    """
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not (weights.is_file() and config.is_file()):
        raise StoreError(f"{folder} holds no adapter: {weights.name} and {config.name} are needed; train it again")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        scale = [settings.get(key) for key in ("r", "lora_alpha", "use_rslora")]
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{config} is unreadable ({error}); delete {folder} to train it again") from error
    content = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Adapter(path=str(folder), digest=digest_of([content, scale]), base=base)
