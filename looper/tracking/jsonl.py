"""Events as lines of JSON in the run's folder, each written whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from looper.errors import ConfigError, StoreError


@dataclass(frozen=True, kw_only=True)
class Jsonl:
    """Write `{"time": ..., "kind": ..., "data": ...}` lines; a killed run leaves whole lines."""

    file: str = "events.jsonl"
    """Name of the file in the run's folder; a run that goes on appends to it."""

    def __post_init__(self) -> None:
        """Check the name. Raises ConfigError for a path."""
        if not self.file or Path(self.file).name != self.file:
            raise ConfigError(f"tracker file {self.file!r} is not a plain file name; use one such as 'events.jsonl'")

    def open(self, folder: Path) -> JsonlSession:
        """Open the file in `folder`, making the folder. Raises StoreError if that is not possible."""
        path = folder / self.file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StoreError(f"cannot open {path} for events: {error.strerror}; check rights and space") from error
        session = JsonlSession(path=path, descriptor=descriptor)
        session.mend()
        return session


@dataclass(kw_only=True)
class JsonlSession:
    """An open events file."""

    path: Path
    descriptor: int
    closed: bool = field(default=False, init=False)

    def mend(self) -> None:
        """End a line that a killed process left unfinished, so that the next event stands on its own."""
        size = os.fstat(self.descriptor).st_size
        if size and os.pread(self.descriptor, 1, size - 1) != b"\n":
            os.write(self.descriptor, b"\n")

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Append one event. Raises StoreError if it cannot be written, TypeError for data that is no JSON."""
        if self.closed:
            raise StoreError(f"event {kind!r} came after {self.path} was finished; open the tracker again")
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = {"time": time, "kind": kind, "data": plain(data)}
        line = (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode()
        try:
            written = os.write(self.descriptor, line)  # one call: lines of several processes do not mix
        except OSError as error:
            raise StoreError(f"cannot write to {self.path}: {error.strerror}; check space") from error
        if written != len(line):
            raise StoreError(f"only {written} of {len(line)} bytes were written to {self.path}; check space")

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Append the final metrics and close; the file is closed even if they cannot be written."""
        if self.closed:
            return
        try:
            self.event("metrics", metrics)
        finally:
            self.closed = True
            os.close(self.descriptor)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it; not-a-number and infinity become text, which JSON has no numbers for."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
