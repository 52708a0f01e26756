"""Weights & Biases: a run's configuration, losses, episodes, matrix and adapters; offline unless told otherwise."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, MachineError
from looper.tracking.jsonl import plain
from looper.tracking.ledger import COLUMNS, Ledger, curves, headline, matrix_rows, place_of, scalars, slug

STAGING = "WANDB_DATA_DIR"
"""Variable by which the library finds the place of its staged files."""

LOG = logging.getLogger(__name__)


class Mode(Enum):
    """Where the records go."""

    offline = "offline"
    online = "online"


@dataclass(frozen=True, kw_only=True)
class WeightsAndBiases:
    """Write a W&B run below the run's folder; `wandb sync` sends an offline one later.

    A run that goes on after a kill opens a second piece with the same id; the service joins the two.
    """

    project: str = "looper"
    """Name of the project."""
    entity: str = ""
    """User or team that owns the project; empty is the account's own."""
    mode: Mode = Mode.offline
    """offline writes files only; online needs an account and the network."""
    group: str = ""
    """Runs that belong together; empty is the run's name, so that the jobs of a grid share it."""
    tags: list[str] = field(default_factory=list)
    """Labels of the run, beside the names of its model and strategy."""
    adapters: bool = True
    """Keep each adapter as an artifact: a reference to its folder, not a copy."""

    def __post_init__(self) -> None:
        """Check the names. Raises ConfigError."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", self.project):
            raise ConfigError(f"project={self.project!r} is no W&B project: use letters, digits, '-', '_' and '.' only")
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise ConfigError(f"tag {tag!r} has {len(tag)} characters; W&B takes 1 to 64")

    def open(self, folder: Path) -> WandbSession:
        """Start a W&B run in the run's folder. Raises MachineError if the library or the rights are missing."""
        try:
            import wandb
        except ImportError as error:
            raise MachineError("tracker=wandb needs the library: pip install 'looper[wandb]'") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run = self._begin(wandb, folder, self.mode)
        except (wandb.Error, OSError) as error:
            if self.mode is Mode.offline:
                raise MachineError(f"W&B cannot write in {folder} ({error}); check rights and space there") from error
            LOG.warning("W&B cannot be reached (%s): the run is recorded offline; send it with `wandb sync`", error)
            run = self._begin(wandb, folder, Mode.offline)
        for metric in ("epoch", "sessions"):
            run.define_metric(metric, hidden=True)
        run.define_metric("learning/*", step_metric="epoch")
        return WandbSession(run=run, keep_adapters=self.adapters, library=wandb, staging=folder / "wandb" / "staging")

    def _begin(self, library: Any, folder: Path, mode: Mode) -> Any:
        return library.init(
            project=self.project,
            entity=self.entity or None,
            mode=mode.value,
            dir=str(folder),
            id=re.sub(r"[^A-Za-z0-9_-]", "-", folder.name),
            name=folder.name,
            group=self.group or folder.name.rpartition("-")[0] or folder.name,
            tags=list(self.tags),
            resume="allow",
            reinit="create_new",  # a job of a sweep never writes into the run of the job before
            settings=library.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,  # the machine is none of the record's business
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )


@dataclass(kw_only=True)
class WandbSession:
    """An open W&B run."""

    run: Any
    """The `wandb.Run`."""
    library: Any
    """The `wandb` module."""
    keep_adapters: bool
    staging: Path
    """Where tables and artifacts wait to be sent; the library's own place is the user's home."""
    ledger: Ledger = field(default_factory=Ledger)
    closed: bool = field(default=False, init=False)

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Record an event: `start`, `session`, `consolidated` and `failed` are understood, of others the numbers."""
        if kind == "start":
            self._start(data)
        elif kind == "session":
            shown = self.ledger.add(data)
            self.run.log({"sessions": len(self.ledger.rows), **shown})
        elif kind == "consolidated":
            self._consolidated(data)
        elif kind == "failed":
            self.run.summary.update({"error": str(data.get("error", ""))})
        else:
            self.run.log(scalars(data, f"{slug(kind)}/"))

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Record tables and final metrics and close the run, whatever happens; a run without metrics has failed."""
        if self.closed:
            return
        self.closed = True
        try:
            with self._staged():
                self._tables(metrics)
            self.run.summary.update(headline(metrics))
            if verdict := metrics.get("verdict"):
                self.run.summary.update({f"verdict/{key}": verdict[key] for key in ("finding", "sentence")})
        finally:
            self.run.finish(exit_code=0 if "resolve_rate" in metrics else 1)

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Point the library to the run's own folder for a while, unless the user chose one."""
        chosen = os.environ.setdefault(STAGING, str(self.staging))
        try:
            yield
        finally:
            if chosen == str(self.staging):
                del os.environ[STAGING]

    def _start(self, facts: Mapping[str, Any]) -> None:
        known = plain(facts)
        self.run.config.update(known, allow_val_change=True)
        config = known.get("config") or {}
        names = [str((config.get(part) or {}).get("_target_", "")).rpartition(".")[2] for part in ("model", "strategy")]
        self.run.tags = tuple(dict.fromkeys([*(self.run.tags or ()), *(name for name in names if name)]))

    def _consolidated(self, data: Mapping[str, Any]) -> None:
        place = place_of(data)
        for epoch, numbers in curves(data):
            self.run.log({"epoch": epoch, **{f"{place}/{key}": value for key, value in numbers.items()}})
        self.run.summary.update(scalars({k: v for k, v in data.items() if k != "history"}, f"{place}/"))
        if self.keep_adapters:
            for path in data.get("adapters") or ():
                with self._staged():
                    self._adapter(Path(path), place, data)

    def _adapter(self, folder: Path, place: str, data: Mapping[str, Any]) -> None:
        facts = {key: plain(value) for key, value in data.items() if key not in ("history", "adapters")}
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self.run.id}-{place.removeprefix('learning/')}")
        artifact = self.library.Artifact(name=name[:128], type="adapter", metadata=facts)
        artifact.add_reference(folder.resolve().as_uri(), checksum=True)
        self.run.log_artifact(artifact)

    def _tables(self, metrics: Mapping[str, Any]) -> None:
        tables: dict[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = {"episodes": (COLUMNS, self.ledger.rows)}
        if metrics.get("matrix"):
            tables["matrix"] = matrix_rows(metrics)
        kept = {
            name: self.library.Table(columns=list(columns), data=[list(row) for row in rows])
            for name, (columns, rows) in tables.items()
            if rows
        }
        if kept:
            self.run.log(kept)
