"""The model card that travels with every export: what the adapter is, what it belongs to, how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from looper.errors import StoreError
from looper.training.adapters import MANIFEST
from looper.training.formats.base_model import Base
from looper.training.formats.lora import Lora


def history_of(adapter: Path) -> Mapping[str, Any]:
    """Return what the adapter's manifest says of its training; empty if it was made elsewhere.

    Raises StoreError for a damaged manifest.
    """
    path = adapter / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        fit = manifest.pop("fit")
        found = {key: value for key, value in manifest.items() if key not in ("weights", "base")}
        return found | {key: fit[key] for key in ("train_loss", "held_out_loss", "steps", "seconds")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is unreadable ({error}); train the adapter again") from error


def card(lora: Lora, *, base: Base, digest: str, history: Mapping[str, Any], form: str, notes: list[str]) -> str:
    """Return the card in Markdown, with the front matter that model hubs read."""
    facts = {
        "format": form,
        "adapter digest": digest,
        "base model": base.name,
        "base digest": base.digest,
        "architecture": base.kind,
        "rank": lora.rank,
        "scale (alpha / rank)": f"{lora.scale:.9g}",
        "adapted layers": len(lora.factors),
    }
    names = {"inputs": "digest of data, base and settings", "data": "digest of the data"}
    facts |= {
        names.get(key, key.replace("_", " ")): _short(value) for key, value in history.items() if value is not None
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    told = "".join(f"\n{note}\n" for note in notes)
    made = "" if history else "\nThe adapter's folder does not say how it was trained.\n"
    return (
        f"---\nbase_model: {json.dumps(base.name)}\ntags: [lora, looper]\n---\n"
        f"# Adapter {digest[:12]}\n\n| fact | value |\n| --- | --- |\n{rows}\n{made}{told}"
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
