"""What the commands of `looper memory` share: opening the file, reading programs, printing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from looper.memory.client import ResearchFSClient


def opened(db: Path, *, write: bool = False) -> ResearchFSClient:
    """Open the client; a file that is only read has to be there."""
    from looper.memory.client import ResearchFSClient

    if not write and not db.exists():
        raise StoreError(f"{db} is not there; make one with `looper memory init --db {db}`, or name another with --db")
    return ResearchFSClient(db, read_only=not write)


def existing(path: Path) -> Path:
    """Return the path. Raises ConfigError if it is no file."""
    if not path.is_file():
        raise ConfigError(f"{path} is no file; give an existing one")
    return path


def text_of(path: Path) -> str:
    """Return a file as text. Raises ConfigError if it is none."""
    try:
        return existing(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: {error}") from error


def ids(names: Any) -> str:
    """Return names in a row."""
    return ", ".join(sorted(names)) or "none"


def notice(line: str) -> None:
    """Print a line that is not the answer."""
    print(line, file=sys.stderr)


def print_json(found: BaseModel | list[Any]) -> None:
    """Print records for a program."""
    rows = [one.model_dump(mode="json") for one in found] if isinstance(found, list) else found.model_dump(mode="json")
    print(json.dumps(rows, ensure_ascii=False, indent=1))
