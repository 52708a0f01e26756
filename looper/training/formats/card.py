"""The model card that travels with every export: what the adapter is, what it belongs to, how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import StoreError, TrainingError
from looper.records import digest_of
from looper.training.adapters import MANIFEST, file_digest
from looper.training.formats.lora import Lora


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model that an adapter belongs to."""

    name: str
    digest: str
    """Of its configuration and weights."""
    kind: str
    """Its `model_type`."""


def base_of(folder: Path, lora: Lora) -> Base:
    """Identify a base model. Raises StoreError if it is none, TrainingError if the adapter does not fit it."""
    from safetensors import SafetensorError, safe_open

    shards = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not shards:
        raise StoreError(f"{folder} is no model in Hugging Face's format; give the adapter's base model as --base")
    shapes: dict[str, list[int]] = {}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for shard in shards:
            with safe_open(str(shard), framework="pt") as opened:
                shapes |= {name: opened.get_slice(name).get_shape() for name in opened.keys()}
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreError(f"{folder} is unreadable: {error}") from error
    for module, (a, b) in lora.factors.items():
        wanted, there = [b.shape[0], a.shape[1]], shapes.get(f"{module}.weight")
        if there != wanted:
            raise TrainingError(
                f"the adapter changes {module}, {wanted[0]} x {wanted[1]}, where {folder} has "
                f"{' x '.join(map(str, there)) if there else 'nothing'}; give the base that it was trained on"
            )
    contents = [file_digest(path) for path in (folder / "config.json", *shards)]
    return Base(name=_name(folder, config), digest=digest_of(contents), kind=str(config.get("model_type")))


def _name(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the model's name as its files or the hub's cache have it, else its folder's; never a path."""
    stated = str(config.get("_name_or_path") or "")
    if stated and not Path(stated).is_absolute():
        return stated
    place = folder.resolve()
    cached = [
        part.removeprefix("models--").replace("--", "/", 1) for part in place.parts if part.startswith("models--")
    ]
    return cached[-1] if cached else place.name


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
        found = {key: value for key, value in manifest.items() if key != "weights"}
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
    names = {"inputs": "digest of data, base and settings"}
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
