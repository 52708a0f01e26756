"""Campaigns that are killed and started again end as undisturbed ones do, and measure nothing twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from looper.campaigns.options import ArmName
from looper.memory.check import check
from tests.campaigns.small import Small, Writing
from tests.campaigns.test_campaign_job import SMALL, finished
from tests.campaigns.test_study import run

MORE = ("campaign.experiments=4", "campaign.pairs=1", "name=killed")
CLOCKED = ("seconds", "overhead", "memory_mb")
"""Endings of keys whose values a clock or the machine says."""


COMMAND = [sys.executable, "-m", "looper", *SMALL, *MORE]


def undisturbed(cwd: Path) -> None:
    done = subprocess.run(COMMAND, cwd=cwd, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr


def descendants(pid: int) -> set[tuple[int, str]]:
    """Return the processes below one, each with its start time, which tells it from a later one of the same id."""
    parents: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else []
        except OSError:
            continue
        if words and words[0] != "Z":
            parents.setdefault(int(words[1]), []).append((int(folder.name), words[19]))
    found: set[tuple[int, str]] = set()
    todo = [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found.update(below)
        todo += [child for child, _ in below]
    return found


def alive(started: set[tuple[int, str]]) -> Iterator[int]:
    for pid, began in started:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z" and words[19] == began:
            yield pid


def kept(cwd: Path) -> dict[Path, tuple[int, int]]:
    """Return the finished trainings and sessions, with what changes when one is written again."""
    found = {}
    for kind in ("measurements", "trajectories"):
        for path in (cwd / "outputs" / kind).glob("*/*.json"):
            json.loads(path.read_text())  # never half a file
            found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not k.endswith(CLOCKED)}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def end_of(cwd: Path) -> dict[str, Any]:
    """Return all figures that a run ended with, less those of the clock."""
    folder, metrics = finished(cwd, "killed")
    return {"metrics": timeless(metrics), **left_by(folder)}


def left_by(folder: Path) -> dict[str, Any]:
    """Return what a run left in its folder, whole files all of them, less what the clock says."""
    assert not list(folder.glob("**/*.part*"))
    tables = {path.parent.name: path.read_text() for path in folder.glob("campaigns/*/results.tsv")}
    records = {path.name: json.loads(path.read_text()) for path in folder.glob("campaigns/*.json")}
    programs = {path.parent.name: path.read_text() for path in folder.glob("campaigns/*/best_train.py")}
    for path in (folder / "memory").glob("*.db"):
        assert check(path) == []
    rows = {
        name: [line.split("\t")[:2] + line.split("\t")[3:] for line in text.splitlines()]
        for name, text in tables.items()
    }
    return {"records": timeless(records), "rows": rows, "programs": programs}


def kill(job: subprocess.Popen[bytes], *, all_of_it: bool) -> None:
    """Kill a run, with its whole process group or alone; nothing that it started may live on."""
    started = descendants(job.pid)
    if all_of_it:
        os.killpg(job.pid, signal.SIGKILL)
    else:
        os.kill(job.pid, signal.SIGKILL)
    job.wait()
    until = time.monotonic() + 60
    while left := list(alive(started)):
        assert time.monotonic() < until, f"{left} live on"
        time.sleep(0.05)


def study(place: Path) -> Any:
    arms = [ArmName.stateful, ArmName.memory]
    return run(place, model=Writing(), benchmark=Small(), arms=arms, earlier=1, experiments=3)


def play(place: Path, moment: int) -> None:
    """Play a study; kill the process, or its whole group, before it puts its file number `moment` in place."""
    os.setsid()
    left = [moment]

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename":
            left[0] -= 1
            if left[0] == 0:
                os.kill(0 if moment % 2 else os.getpid(), signal.SIGKILL)  # 0 is the whole group

    sys.addaudithook(count)
    study(place)


def test_a_study_killed_between_its_files_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    metrics, trials = study(whole)
    assert {trial["score"] is None for rows in trials.values() for trial in rows} == {False}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([play.__module__])
    seen, kills = dict[Path, tuple[int, int]](), 0
    while True:
        process = context.Process(target=play, args=(broken, 3 + 5 * kills))
        process.start()
        process.join()
        now = kept(broken)
        assert seen.items() <= now.items(), "a finished training or session was done again"
        seen = now
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills > 3
    again, told = study(broken)
    assert seen == kept(broken)
    assert timeless([again, told]) == timeless([metrics, trials])
    assert left_by(broken / "run") == left_by(whole / "run")
    assert {path.name for path in seen} == {path.name for path in kept(whole)}


@pytest.mark.slow
def test_a_campaign_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for place in (whole, broken):
        place.mkdir()
    began = time.monotonic()
    undisturbed(whole)
    each = (time.monotonic() - began) / len(list((whole / "outputs" / "measurements").glob("*/*.json")))
    draw, seen = Random(), dict[Path, tuple[int, int]]()
    for number in range(5):
        job = subprocess.Popen(
            COMMAND, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        target = len(seen) + draw.randrange(3)
        while job.poll() is None and len(list((broken / "outputs" / "measurements").glob("*/*.json"))) < target:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 1.2 * each))
        if job.poll() is not None:
            break
        kill(job, all_of_it=number % 2 == 0)
        now = kept(broken)
        assert seen.items() <= now.items(), "a finished training or session was done again"
        seen = now
    undisturbed(broken)
    assert seen.items() <= kept(broken).items()
    assert end_of(broken) == end_of(whole)
    assert {path.name for path in kept(broken)} == {path.name for path in kept(whole)}
