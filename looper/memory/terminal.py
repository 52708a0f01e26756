"""What the commands of `looper memory` share: opening the file, reading programs, printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from looper.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from looper.memory.client import ResearchFSClient


def opened(db: Path, *, write: bool = False, make: bool = False) -> ResearchFSClient:
    """Open the client; the file has to be there unless `make`, which says so on standard error when it makes one."""
    from looper.memory.client import ResearchFSClient

    if make and not db.exists():
        notice(f"{db} is not there yet; it is made")
    elif not db.exists():
        raise StoreError(f"{db} is not there; make one with `looper memory init --db {db}`, or name another with --db")
    return ResearchFSClient(db, read_only=not (write or make))


@contextmanager
def written(out: Path, db: Path) -> Iterator[TextIO]:
    """Write a text file that stands at its place only when it is whole; never in the place of a memory.

    Raises ConfigError where it cannot be written.
    """
    place, memory = out.resolve(), db.resolve()
    if place in [memory.with_name(memory.name + ending) for ending in ("", "-wal", "-shm")] or _is_memory(place):
        raise ConfigError(f"--out {out} is a memory file itself, which the export would replace; name another file")
    whole = not place.exists() or place.is_file()  # a pipe or a device cannot be replaced
    draft = place.with_name(place.name + ".part") if whole else place
    try:
        with draft.open("x" if whole else "w", encoding="utf-8") as file:
            try:
                yield file
            except BaseException:
                if whole:
                    draft.unlink()
                raise
        if whole:
            draft.replace(place)
    except FileExistsError as error:
        raise ConfigError(f"{draft} is there already, perhaps of an export that was cut off; remove it") from error
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}; choose another place") from error


def _is_memory(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\x00"


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


def say(text: str, end: str = "\n") -> None:
    """Print a text that others may have written: without escapes, which a terminal would obey."""
    from looper.memory.ingestion.untrusted import visible

    print(visible(text), end=end)


def line_of(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())


def notice(line: str) -> None:
    """Print a line that is not the answer."""
    from looper.memory.ingestion.untrusted import visible

    print(line_of(visible(line)), file=sys.stderr)


def print_json(found: BaseModel | list[Any]) -> None:
    """Print records for a program."""
    rows = [one.model_dump(mode="json") for one in found] if isinstance(found, list) else found.model_dump(mode="json")
    print(json.dumps(rows, indent=1))
