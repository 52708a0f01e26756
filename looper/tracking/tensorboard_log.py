"""TensorBoard: curves of losses and rates, and the run's tables as text, in event files below the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, MachineError
from looper.tracking.jsonl import plain
from looper.tracking.ledger import COLUMNS, Ledger, curves, headline, markdown, matrix_rows, place_of, scalars, slug


@dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """Write event files; look at them with `tensorboard --logdir FOLDER`."""

    folder: str = "tensorboard"
    """Folder of the event files in the run's folder; a run that goes on adds a file."""
    flush_seconds: int = 30
    """Seconds after which what was recorded is on the disk."""

    def __post_init__(self) -> None:
        """Check name and time. Raises ConfigError."""
        if not self.folder or Path(self.folder).name != self.folder:
            raise ConfigError(f"tracker folder {self.folder!r} is not a plain name; use one such as 'tensorboard'")
        if self.flush_seconds < 1:
            raise ConfigError(f"flush_seconds={self.flush_seconds} is not positive; choose 1 or more")

    def open(self, folder: Path) -> TensorBoardSession:
        """Open an event file. Raises MachineError if the library is missing or the file cannot be written."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MachineError("tracker=tensorboard needs the library: pip install 'looper[tensorboard]'") from error
        try:
            writer: Any = SummaryWriter(str(folder / self.folder), flush_secs=self.flush_seconds)
        except OSError as error:
            raise MachineError(
                f"cannot write event files in {folder / self.folder}: {error.strerror or error}; check rights and space"
            ) from error
        return TensorBoardSession(writer=writer)


@dataclass(kw_only=True)
class TensorBoardSession:
    """An open event file."""

    writer: Any
    ledger: Ledger = field(default_factory=Ledger)
    closed: bool = field(default=False, init=False)
    others: dict[str, int] = field(default_factory=dict, init=False)

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Record an event: `start`, `session`, `consolidated` and `failed` are understood, of others the numbers."""
        if kind == "start":
            self.writer.add_text("start", f"```json\n{json.dumps(plain(data), indent=2)}\n```")
        elif kind == "session":
            shown = self.ledger.add(data)
            self._scalars(shown, len(self.ledger.rows))
        elif kind == "consolidated":
            place = place_of(data)
            for epoch, numbers in curves(data):
                self._scalars({f"{place}/{key}": value for key, value in numbers.items()}, int(epoch))
            facts = scalars({k: v for k, v in data.items() if k != "history"})
            self.writer.add_text(place, markdown(("fact", "value"), list(facts.items())))
        elif kind == "failed":
            self.writer.add_text("failed", str(data.get("error", "")))
        else:
            self.others[kind] = self.others.get(kind, 0) + 1
            self._scalars(scalars(data, f"{slug(kind)}/"), self.others[kind])

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Record tables and final metrics and close the file, whatever happens."""
        if self.closed:
            return
        self.closed = True
        try:
            self._scalars({f"result/{key}": value for key, value in headline(metrics).items()}, 0)
            if self.ledger.rows:
                self.writer.add_text("episodes", markdown(COLUMNS, self.ledger.rows))
            columns, rows = matrix_rows(metrics)
            if rows:
                self.writer.add_text("matrix", markdown(columns, rows))
            if verdict := metrics.get("verdict"):
                self.writer.add_text("verdict", "\n\n".join([verdict["sentence"], *verdict.get("caveats", ())]))
        finally:
            self.writer.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
