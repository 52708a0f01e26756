"""Finished runs are read back; those that are not finished are named and stop nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recordings import OVERRIDES, write_recording


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, one that was stopped, and one stopped before its manifest."""
    cwd = tmp_path_factory.mktemp("results")
    recording = cwd / "replies.jsonl"
    write_recording(recording)
    command = [sys.executable, "-m", "looper", *OVERRIDES, f"model.path={recording}"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    folder = cwd / "outputs" / "runs"
    (folder / "stopped-1").mkdir()
    (folder / "stopped-1" / "manifest.json").write_text(json.dumps({"overrides": ["seed=2", "name=a b"]}))
    (folder / "begun-1").mkdir()
    return folder


def report(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looper.cli", "report", *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_unfinished_runs_are_named_and_the_others_shown(runs: Path) -> None:
    done = report(*sorted(runs.iterdir()))
    assert done.returncode == 0
    assert "Resolved on held-out tasks" in done.stdout
    named = done.stderr.splitlines()
    assert named[0] == f"looper: {runs / 'begun-1'} is no run: give folders below outputs/runs"
    assert named[1].startswith("looper: run stopped-1 is not finished: start its command again")
    assert "(python -m looper seed=2 'name=a b')" in named[1] and len(named) == 2


def test_nothing_finished_is_a_failure(runs: Path) -> None:
    done = report(runs / "stopped-1")
    assert done.returncode == 1 and done.stdout == "" and "not finished" in done.stderr


@pytest.mark.parametrize(("name", "key"), [("manifest.json", "overrides"), ("metrics.json", "ground")])
@pytest.mark.parametrize("text", ["{}", "[]"])
def test_a_file_without_what_it_should_hold_is_named_with_the_key(
    runs: Path, tmp_path: Path, name: str, key: str, text: str
) -> None:
    (finished,) = (folder for folder in runs.iterdir() if (folder / "metrics.json").exists())
    for file in ("manifest.json", "metrics.json"):
        (tmp_path / file).write_text(text if file == name else (finished / file).read_text())
    done = report(tmp_path)
    assert done.returncode == 2 and f"{tmp_path / name} has no {key}: it is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_run_is_an_error_that_names_it(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{")
    done = report(tmp_path)
    assert done.returncode == 2 and "unreadable" in done.stderr
