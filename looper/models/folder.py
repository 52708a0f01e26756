"""A folder of weights in Hugging Face's format: its identity, its chat template, where its end tokens are named."""

from __future__ import annotations

import hashlib
import json
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from looper.chat import CHATML, special, stated_template
from looper.errors import ModelError
from looper.weight_files import file_digest

LOG = logging.getLogger(__name__)


def base_of(folder: Path) -> str:
    """Return the identity of a folder's weights, config and tokenizer: what an adapter names as its base."""
    files = files_of(folder)
    stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return f"hf-{_digest(stamps)}"


def files_of(folder: Path) -> list[Path]:
    """Return the files that decide what a model answers. Raises ModelError if one is missing."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(
                f"{folder / name} is missing; give a model's folder in Hugging Face's format, with a fast tokenizer"
            )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{folder} holds no *.safetensors; convert the model's weights to that format")
    index = _json(folder / "model.safetensors.index.json").get("weight_map", {})
    if lost := sorted(set(index.values()) - {path.name for path in weights}):
        raise ModelError(f"{folder} lacks {lost[0]} ({len(lost)} of its weight files); fetch or copy it again")
    names = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    further = [folder / name for name in names if (folder / name).is_file()]
    return [folder / "config.json", folder / "tokenizer.json", *further, *weights]


@lru_cache(maxsize=32)
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Digest of files, computed again only when one of them changed."""
    whole = hashlib.sha256()
    for path, _, _ in stamps:
        whole.update(Path(path).name.encode() + b"\0")
        whole.update(bytes.fromhex(file_digest(Path(path))))
    return whole.hexdigest()[:12]


def template_of(folder: Path) -> str:
    """Return a folder's chat template; ChatML if it states none. Warns of what will not be as the model knows it."""
    settings = _json(folder / "tokenizer_config.json")
    template = stated_template(folder, settings)
    if not template:
        LOG.warning("%s states no chat template: it is asked in ChatML, which it may not know", folder)
    elif "bos_token" in template and not special(settings, "bos_token"):
        LOG.warning("the chat template of %s asks for bos_token, which its tokenizer_config.json does not name", folder)
    return template or CHATML


def ends_of(folder: Path, ids: dict[str, int]) -> tuple[int, ...]:
    """Return the tokens that end a reply, from the generation's, the model's and the tokenizer's settings.

    `ids` is the tokenizer's vocabulary. Raises ModelError if none is named.
    """
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _json(folder / name).get("eos_token_id")
        ends |= {int(v) for v in (value if isinstance(value, list) else [value]) if v is not None}
    token = special(_json(folder / "tokenizer_config.json"), "eos_token")
    if token in ids:
        ends.add(ids[token])
    if not ends:
        raise ModelError(f"{folder} names no token that ends a reply; set eos_token_id in its generation_config.json")
    return tuple(sorted(ends))


def positions_of(folder: Path) -> int:
    """Return how many tokens a model reads; 0 if it does not say."""
    config = _json(folder / "config.json")
    inner = config.get("text_config") or {}  # of models that read more than text
    return int(config.get("max_position_embeddings") or inner.get("max_position_embeddings") or 0)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return data if isinstance(data, dict) else {}
