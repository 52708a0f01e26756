"""However a run ends, its trackers are finished; one that did not end well is marked."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from looper.config import read
from looper.errors import StoreError
from looper.launch import _ground, tracked
from looper.places import config_folder
from looper.tracking.jsonl import Jsonl
from tests.recordings import OVERRIDES, write_recording


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def parts() -> dict[str, Jsonl]:
    return {"one": Jsonl(), "two": Jsonl(file="two.jsonl")}


@pytest.mark.parametrize("error", [ValueError("no room"), KeyboardInterrupt(), SystemExit(3)])
def test_every_tracker_is_finished_with_a_mark_when_a_run_stops(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), tracked(parts(), tmp_path) as tracker:
        tracker.event("start", {})
        raise error
    for name in ("events.jsonl", "two.jsonl"):
        kinds = [event["kind"] for event in events(tmp_path / name)]
        assert kinds == ["start", "failed", "metrics"]
    told = events(tmp_path / "events.jsonl")
    assert told[1]["data"]["error"] in ("ValueError: no room", "KeyboardInterrupt", "SystemExit: 3")
    assert told[2]["data"] == {}
    tracker.event("late", {})
    assert tracker.failed == {"one", "two"}, "they are closed"


def test_a_run_that_ends_well_finishes_its_trackers_itself(tmp_path: Path) -> None:
    with tracked(parts(), tmp_path) as tracker:
        tracker.event("start", {})
    tracker.finish({"n": 1})
    assert [event["kind"] for event in events(tmp_path / "two.jsonl")] == ["start", "metrics"]


def test_a_tracker_that_cannot_be_opened_leaves_none_open(tmp_path: Path) -> None:
    (tmp_path / "two.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot open"), tracked(parts(), tmp_path):
        raise AssertionError("the run must not begin")
    assert [event["kind"] for event in events(tmp_path / "events.jsonl")] == ["failed", "metrics"]


def test_the_ground_of_a_run_is_its_tasks_and_the_python_that_commands_find(monkeypatch: pytest.MonkeyPatch) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        experiment = read(compose("config", overrides=["benchmark.size=2", "benchmark.probes=[]"]))
    tasks = experiment.parts["benchmark"].load(1)
    ground = _ground(experiment, tasks)
    assert ground == _ground(experiment, tasks) != _ground(experiment, tasks[1:])
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert _ground(experiment, tasks) != ground


def test_an_interrupted_run_is_marked_and_goes_on(tmp_path: Path) -> None:
    recording = tmp_path / "replies.jsonl"
    write_recording(recording)
    command = [sys.executable, "-m", "looper", *OVERRIDES, f"model.path={recording}", "parallel=1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    limit = time.monotonic() + 100
    while not (found := list(tmp_path.glob("outputs/runs/*/events.jsonl"))) or '"session"' not in found[0].read_text():
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    stopped = events(found[0])
    assert [event["kind"] for event in stopped[-2:]] == ["failed", "metrics"]
    assert stopped[-2]["data"]["error"] == "KeyboardInterrupt"
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100).returncode == 0
    last = events(found[0])[-1]
    assert last["kind"] == "metrics"
    assert last["data"]["primary"] == "conventions"
