"""Whole runs on recorded sessions: what is shared, what survives a kill, what never reaches learning."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.recordings import OVERRIDES, write_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "replies.jsonl"
    write_recording(path, wrong=1)
    return path


def command(recording: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "looper", *OVERRIDES, f"model.path={recording}", *more]


def run(cwd: Path, recording: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(recording, *more), cwd=cwd, capture_output=True, text=True, timeout=120)


def folder_of(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs" / "runs").iterdir()
    return folder


def timeless(value: Any) -> Any:
    """Return metrics without times."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not k.startswith("seconds")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def metrics_of(cwd: Path) -> Any:
    return timeless(json.loads((folder_of(cwd) / "metrics.json").read_text()))


def sessions_of(cwd: Path) -> list[dict[str, Any]]:
    lines = (folder_of(cwd) / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event["data"] for event in events if event["kind"] == "session"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Path:
    cwd = tmp_path_factory.mktemp("run")
    done = run(cwd, recording)
    assert done.returncode == 0, done.stderr
    assert "Resolved on held-out tasks" in done.stdout
    return cwd


def test_worlds_share_their_sessions_and_differ_in_their_verdicts(finished: Path) -> None:
    metrics = metrics_of(finished)
    assert metrics["n_worlds"] == 2
    assert metrics["resolve_rate"]["base"]["n"] == 4
    # A session that fixes one of two copies is right in one world and wrong in the other.
    assert metrics["resolve_rate"]["base"]["estimate"] == 0.5
    assert metrics["families"]["seen"]["resolve_rate"]["base"]["estimate"] == 1.0
    train = metrics["train"]
    assert (train["sessions"], train["verdicts"], train["worlds"]) == (4, 8, 2)
    sessions = sessions_of(finished)
    assert len(sessions) == 4 + 2 + 2 * 2
    assert all(len(s["resolved"]) == 2 for s in sessions if "conventions" in s["task"])


def test_a_finished_run_is_shown_again_without_a_session(finished: Path, recording: Path) -> None:
    before = sessions_of(finished)
    begun = time.monotonic()
    again = run(finished, recording)
    assert again.returncode == 0
    assert "Resolved on held-out tasks" in again.stdout
    assert sessions_of(finished) == before
    assert time.monotonic() - begun < 60


def test_the_number_of_sessions_at_once_changes_nothing(finished: Path, recording: Path, tmp_path: Path) -> None:
    assert run(tmp_path, recording, "parallel=1").returncode == 0
    assert metrics_of(tmp_path) == metrics_of(finished)
    assert (folder_of(tmp_path) / "episodes.jsonl").read_text() == (folder_of(finished) / "episodes.jsonl").read_text()


def test_a_killed_run_goes_on_and_runs_nothing_twice(finished: Path, recording: Path, tmp_path: Path) -> None:
    rng = random.Random(3)
    kills = 0
    for _ in range(12):
        process = subprocess.Popen(
            command(recording, "parallel=2"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.3, 0.9) if kills < 5 else 100)
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 1
    assert metrics_of(tmp_path) == metrics_of(finished)
    counts = Counter(s["digest"] for s in sessions_of(tmp_path))
    assert max(counts.values()) == 1


def test_held_out_tasks_reach_neither_training_nor_memory(finished: Path) -> None:
    metrics = metrics_of(finished)
    assert metrics["held_out_trained_on"] == 0
    sessions = sessions_of(finished)
    worked = {task for s in sessions if s["phase"].startswith("work") for task in s["resolved"]}
    probed = {task for s in sessions if s["phase"].startswith("probe") for task in s["resolved"]}
    assert worked
    assert not worked & probed


def test_a_rerun_on_other_ground_takes_the_old_result_away(finished: Path, recording: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "outputs"), str(tmp_path)], check=True)
    old = folder_of(tmp_path) / "metrics.json"
    old.write_text(json.dumps({**json.loads(old.read_text()), "ground": "another"}))
    for episode in (tmp_path / "outputs" / "episodes").glob("*/*.json"):
        episode.write_text('{"digest": ')
    stopped = subprocess.run(command(recording), cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert stopped.returncode == 2 and "is unreadable" in stopped.stderr
    assert not old.exists() and (folder_of(tmp_path) / "manifest.json").exists()


def test_an_unreadable_episode_is_named(finished: Path, recording: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "outputs"), str(tmp_path)], check=True)
    (folder_of(tmp_path) / "metrics.json").unlink()
    victim = next((tmp_path / "outputs" / "episodes").glob("*/*.json"))
    victim.write_text('{"digest": ')
    done = run(tmp_path, recording)
    assert done.returncode == 2
    assert victim.name in done.stderr
    assert "delete it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder_of(tmp_path) / "metrics.json").exists()
    victim.unlink()
    assert run(tmp_path, recording).returncode == 0
    assert metrics_of(tmp_path) == metrics_of(finished)


def test_no_git_on_the_path_is_said(recording: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command(recording), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "git" in done.stderr
    assert "Traceback" not in done.stderr


def test_outputs_that_cannot_be_written_are_said(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file, not a folder")
    done = run(tmp_path, recording)
    assert done.returncode == 2
    assert "out=outputs cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_stops_the_run_with_nothing_half_written(recording: Path, tmp_path: Path, finished: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    words = " ".join(command(recording, f"out={small}/o", "hydra.run.dir=jobs")).replace("[", r"\[").replace("]", r"\]")
    script = (
        f"mount -t tmpfs -o size=64k none {small} && {words}; code=$?; "
        f"find {small} -name '*.json' -size 0; find {small} -name '.*.json.*'; "
        f"find {small} -name metrics.json; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "No space left" in done.stderr
    assert ".json" not in done.stdout


def test_a_grid_ends_in_one_table(recording: Path, tmp_path: Path) -> None:
    arguments = command(recording, "prompt.prune=true,false")
    arguments.insert(3, "-m")
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 runs, primary family" in done.stdout
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2


def test_a_grid_goes_on_after_a_job_that_fails(recording: Path, tmp_path: Path) -> None:
    arguments = command(recording, "curriculum.train=2,50")
    arguments.insert(3, "-m")
    arguments.remove("curriculum.train=2")
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "curriculum.train=50 failed" in done.stderr
    assert "1 runs, primary family" in done.stdout


def test_another_recording_or_sandbox_is_another_run(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "outputs"), str(tmp_path)], check=True)
    replies = tmp_path / "replies.jsonl"
    kept: list[str] = []
    for wrong in (2, 3):  # the same file name, so the same run id, with other content
        write_recording(replies, wrong=wrong)
        assert run(tmp_path, Path(replies.name)).returncode == 0
        (folder,) = [f for f in (tmp_path / "outputs" / "runs").iterdir() if f.name != folder_of(finished).name]
        kept.append((folder / "metrics.json").read_text())
    assert json.loads(kept[0])["ground"] != json.loads(kept[1])["ground"]
    assert timeless(json.loads(kept[0])) != timeless(json.loads(kept[1]))


def test_a_session_that_the_machine_failed_is_run_again_and_judged_anew(tmp_path: Path) -> None:
    from looper.agents.loop import Agent, Budget
    from looper.agents.prompt import Prompt
    from looper.benchmarks.bugs.benchmark import Bugs
    from looper.memory.none import NoMemory
    from looper.models.replay import Replay
    from looper.records import Conversation, Exit, Reply, Skill
    from looper.rollout import Wave
    from looper.session import Sessions
    from looper.store import Store
    from looper.workspaces.local import LocalWorkspace
    from tests.recordings import draws

    write_recording(tmp_path / "r.jsonl")
    replay = Replay(path=str(tmp_path / "r.jsonl"))
    broken = [True]

    class Flaky(Replay):
        """A server that is down for the first session."""

        def reply(self, conversations: list[Conversation]) -> list[Reply]:
            if broken:
                raise ConnectionError("the server is down")
            return list(replay.reply(conversations))

    task = draws()[-1].task
    sessions = Sessions(
        agent=Agent(prompt=Prompt(), budget=Budget()),
        benchmark=Bugs(),
        workspace=LocalWorkspace(),
        store=Store(tmp_path / "store"),
        model=Flaky(path=replay.path),
        skill=Skill(),
    )
    (attempt,) = Wave(tasks=[task]).plan(NoMemory())
    (failed,), _ = sessions.run(attempt)
    assert failed.trajectory.exit is Exit.ERROR
    assert "the server is down" in failed.trajectory.error
    assert failed.infrastructure
    assert sessions.known(attempt) is None
    broken.clear()
    (again,), fresh = sessions.run(attempt)
    assert fresh
    assert again.resolved
    assert sessions.known(attempt) == [again]


def test_some_tasks_are_drawn_in_their_order_and_others_for_another_name():
    from looper.rollout import some
    from tests.recordings import draws

    tasks = [draw.task for draw in draws()]
    first, again, other = (some(tasks, 3, seed) for seed in ("grpo-0/1", "grpo-0/1", "grpo-1/1"))
    assert first == again != other
    assert list(first) == [task for task in tasks if task in first] and len(first) == 3
    assert some(tasks, 0, "x") is tasks and some(tasks, len(tasks), "x") is tasks
