"""Identity of a trained adapter."""

from __future__ import annotations

from pathlib import Path

from looper import lora_files
from looper.errors import StoreError
from looper.records import Adapter


def adapter_at(folder: Path, base: str) -> Adapter:
    """Return the record of the adapter in a folder, its digest a function of weights and scale only.

    Raises StoreError if the folder holds no readable adapter in PEFT's format.
    """
    weights, config = folder / lora_files.WEIGHTS, folder / lora_files.CONFIG
    if not (weights.is_file() and config.is_file()):
        raise StoreError(f"{folder} holds no adapter: {weights.name} and {config.name} are needed; train it again")
    try:
        return Adapter(path=str(folder), digest=lora_files.digest(folder), base=base)
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{config} is unreadable ({error}); delete {folder} to train it again") from error
