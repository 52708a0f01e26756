"""The base model that an adapter belongs to: found where the adapter says it is, identified, checked by its shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import StoreError, TrainingError
from looper.training.adapters import MANIFEST, base_digest
from looper.training.formats.lora import Lora


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model that an adapter belongs to."""

    name: str
    digest: str
    """Of its configuration and weights."""
    kind: str
    """Its `model_type`."""


def found(adapter: Path, stated: str, known: Mapping[str, Path]) -> Path:
    """Return the folder of an adapter's base model.

    `stated` is what the adapter calls it: a folder, one of the models that are `known` by a name, or a hub's name that
    is in the hub's cache. An adapter that looper trained knows its base's digest too: a folder of other weights is then
    not its base, and a known model of these weights is, wherever it was trained. Raises StoreError if there is none.
    """
    digest = trained_on(adapter)
    places: list[Path] = [known[stated]] if stated in known else [Path(stated).expanduser()] if stated else []
    if digest:
        places += known.values()
    for place in places:
        if _is_model(place) and digest in ("", base_digest(place)):
            return place
    if (cached := _cached(stated)) is not None and digest in ("", base_digest(cached)):
        return cached
    told = f"names {stated!r} as its base model, which is not here" if stated else "does not name its base model"
    other = " any more, or with other weights" if digest and stated else ""
    raise StoreError(f"{adapter} {told}{other}; give the folder of the base model's weights as --base")


def trained_on(adapter: Path) -> str:
    """Return the digest of the base in an adapter's manifest; '' if it has none."""
    path = adapter / MANIFEST
    return str(json.loads(path.read_text(encoding="utf-8")).get("base", "")) if path.is_file() else ""


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _cached(name: str) -> Path | None:
    """Return the folder of a hub's model in the local cache; None for what is no hub's name, or not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return folder if _is_model(folder) else None


def base_of(folder: Path, lora: Lora, known: Mapping[str, Path]) -> Base:
    """Identify a base model. Raises StoreError if it is none, TrainingError if the adapter does not fit it."""
    from safetensors import SafetensorError, safe_open

    if not _is_model(folder):
        raise StoreError(f"{folder} is no model in Hugging Face's format; give the adapter's base model as --base")
    shapes: dict[str, list[int]] = {}
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for shard in sorted(folder.glob("*.safetensors")):
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
    return Base(name=_name(folder, config, known), digest=base_digest(folder), kind=str(config.get("model_type")))


def _name(folder: Path, config: Mapping[str, Any], known: Mapping[str, Path]) -> str:
    """Return the model's name as it is known, as its files or the hub's cache have it, else its folder's; no path."""
    place = folder.resolve()
    if called := [name for name, path in known.items() if path.resolve() == place]:
        return called[0]
    stated = str(config.get("_name_or_path") or "")
    if stated and not Path(stated).is_absolute():
        return stated
    cached = [
        part.removeprefix("models--").replace("--", "/", 1) for part in place.parts if part.startswith("models--")
    ]
    return cached[-1] if cached else place.name
