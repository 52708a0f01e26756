"""Finished runs read back: one table for one run or for a grid, and CSV."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from looper.errors import StoreError
from looper.store import write_whole

Finished = tuple[Mapping[str, Any], dict[str, Any]]
"""A run's overrides and its metrics."""


def load(folder: Path, overrides: Sequence[str] | None = None) -> Finished:
    """Read a finished run. Raises StoreError naming the file that is missing or damaged."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename} is missing: {folder} is no finished run") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} is unreadable: {error}") from error
    for name, found, key in (("manifest.json", manifest, "overrides"), ("metrics.json", metrics, "ground")):
        if not isinstance(found, dict) or key not in found:
            raise StoreError(
                f"{folder / name} has no {key}: it is damaged or of another version; delete it and give the run's "
                "command again"
            )
    words = manifest["overrides"] if overrides is None else overrides
    return dict(_pair(word) for word in words), metrics


def _pair(word: str) -> tuple[str, str]:
    key, _, value = word.lstrip("+~").partition("=")
    return key, value


def show(folders: Sequence[Path], csv: Path | None = None) -> None:
    """Print the finished runs as one table, and write it as CSV where asked for; the others are named on stderr.

    Raises StoreError if one is damaged, SystemExit(1) if none is finished.
    """
    from looper.report.export import csv_text
    from looper.report.grid import grid_tables
    from looper.report.table import run_table

    finished = [folder for folder in folders if (folder / "metrics.json").exists()]
    for folder in folders:
        if folder not in finished:
            print(f"looper: {_unfinished(folder)}", file=sys.stderr)
    if not finished:
        raise SystemExit(1)
    runs = [load(folder) for folder in finished]
    console = Console()
    console.print(run_table(runs[0][1]) if len(runs) == 1 else grid_tables(runs))
    if csv is not None:
        write_whole(csv, csv_text(runs))


def _unfinished(folder: Path) -> str:
    """Say of a folder without metrics what it is, and how it gets some."""
    if not (folder / "manifest.json").exists():
        return f"{folder} is no run: give folders below outputs/runs"
    try:
        words = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["overrides"]
    except (OSError, ValueError, KeyError, TypeError):
        words = []
    command = shlex.join(["python", "-m", "looper", *map(str, words)])
    return f"run {folder.name} is not finished: start its command again ({command})"


class GridTable(Callback):
    """Hydra callback: a sweep ends with one table of all its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table; jobs that did not finish are counted, not left out in silence."""
        sweep = Path(config.hydra.sweep.dir)
        marks = sorted(sweep.glob("*/run.json"), key=lambda path: (len(path.parent.name), path.parent.name))
        jobs = [json.loads(mark.read_text(encoding="utf-8")) for mark in marks]
        runs = [load(Path(job["run"]), job["overrides"]) for job in jobs if "run" in job]
        failed = [job for job in jobs if "error" in job]
        if runs:
            from looper.report.export import csv_text
            from looper.report.grid import grid_tables

            Console().print(grid_tables(runs))
            write_whole(sweep / "results.csv", csv_text(runs))
            print(f"table: {sweep / 'results.csv'}")
        for job in failed:
            print(f"looper: {' '.join(job['overrides'])} failed: {job['error']}", file=sys.stderr)
        if failed:
            raise SystemExit(2)
