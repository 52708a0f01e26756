"""A model of the hub in the local cache, fetched once if it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from looper.errors import ModelError
from looper.models.folder import files_of

PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""What is taken from a hub: no code, no other formats of the weights."""


def fetched(name: str, revision: str) -> Path:
    """Return the folder of a hub's model in the local cache, fetched if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {"repo_id": name, "revision": revision, "allow_patterns": list(PATTERNS)}
    try:
        there = Path(snapshot_download(**wanted, local_files_only=True))
        files_of(there)
        return there
    except (LocalEntryNotFoundError, ModelError):  # nothing in the cache, or what an interrupted fetch left
        pass
    except HFValidationError as error:
        raise ModelError(
            f"model.name={name!r} is neither a folder nor a hub's name ({error}); give one of them"
        ) from error
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:  # the hub's client lets the errors of several libraries through
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise ModelError(
            f"model.name={name!r} (revision {revision}) is no folder, is not in the hub's cache, and could not be "
            f"fetched ({reason}); check the name and the connection, or give a folder that holds the model"
        ) from error
