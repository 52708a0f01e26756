"""Whole campaigns through the command line: real boxes, real trainings of ten steps, a real server on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from looper.memory.client import ResearchFSClient
from looper.records import Episode
from looper.store import Store
from tests.models.loopback import serving
from tests.models.test_http import completion

SMALL = (
    "+exp=research",
    "benchmark.budget=5120",
    "campaign.experiments=2",
    "campaign.baselines=2",
    "campaign.pairs=0",
    "campaign.finals=2",
)


def looper(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looper", *SMALL, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done


def finished(cwd: Path, name: str) -> tuple[Path, Any]:
    (folder,) = (cwd / "outputs" / "runs").glob(f"{name}-*")
    return folder, json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("campaigns")
    (cwd / "told.txt").write_text(looper(cwd).stdout)
    return cwd


def test_a_campaign_ends_with_a_table_a_log_a_program_and_a_page(place: Path) -> None:
    folder, metrics = finished(place, "research")
    (campaign,) = metrics["campaigns"]
    arm = metrics["arms"]["stateful"]
    assert sum(arm["fates"].values()) == 2
    assert 0.0 < campaign["costs"]["overhead"] < 1.0
    assert campaign["costs"]["prompt_tokens"] is None, "no model was asked"
    lines = (folder / "campaigns" / campaign["name"] / "results.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert len(lines) == 1 + 2 + 2, "a header, the baselines and the trials"
    program = (folder / "campaigns" / campaign["name"] / "best_train.py").read_text()
    compile(program, "best_train.py", "exec")
    page = (folder / "report.html").read_text()
    assert "<svg" in page
    assert metrics["verdict"] in page.replace("&#43;", "+")
    assert "stateful" in (place / "told.txt").read_text()


def test_every_trial_is_in_the_memory_with_its_retrieval(place: Path) -> None:
    folder, metrics = finished(place, "research")
    (campaign,) = metrics["campaigns"]
    with ResearchFSClient(folder / campaign["memory"], read_only=True) as client:
        trials = [one for one in client.store.experiments(campaign["name"]) if one.parent]
        assert len(trials) == 2
        for one in trials:
            assert one.retrieval
            assert one.methods, "the change holds the method that was offered"
            assert one.retrieval in client.why(one.id)
        sigma = client.noise(trials[0].scope).sigma
    assert sigma is not None


def test_its_sessions_are_episodes_like_others(place: Path) -> None:
    folder, _ = finished(place, "research")
    rows = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    episodes = [Store(place / "outputs").episode(row["episode"]) for row in rows]
    assert len(episodes) == 2
    assert all(isinstance(one, Episode) and one.trajectory.patch for one in episodes)


@pytest.mark.slow
def test_the_same_command_shows_what_is_stored_and_another_run_repeats_it(place: Path, tmp_path: Path) -> None:
    folder, metrics = finished(place, "research")
    before = (folder / "metrics.json").stat().st_mtime_ns
    assert "stateful" in looper(place).stdout
    assert (folder / "metrics.json").stat().st_mtime_ns == before
    (folder / "metrics.json").unlink()
    for old in (folder / "campaigns").glob("*.json"):
        old.unlink()
    looper(place)  # plays the campaign again from stored sessions and trainings
    _, again = finished(place, "research")
    assert again == metrics, "what is stored decides everything"


@pytest.mark.slow
def test_a_chat_model_proposes_through_a_server_and_may_not_touch_the_judge(place: Path) -> None:
    replies = {
        0: '<edit path="train.py">\nLR = 0.003\n=======\nLR = 0.004\n</edit>',
        1: "<think>a higher learning rate</think><done/>",
    }
    cheat = '<write path="prepare.py">\nprint(1)\n</write>'

    def script(method: str, path: str, body: Any) -> tuple[int, Any]:
        if body is None:
            return 200, {"data": [{"id": "m"}]}
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        asked = body["messages"][1]["content"]
        text = replies[turn] if "a higher learning rate" not in asked else (cheat if turn == 0 else "<done/>")
        return 200, completion(text, prompt_tokens=100, completion_tokens=10)

    with serving(script) as server:
        looper(place, "name=asked", "model=http", f"model.base_url={server.url}/v1", "model.name=m")
    folder, metrics = finished(place, "asked")
    (campaign,) = metrics["campaigns"]
    assert campaign["costs"]["prompt_tokens"] == 400
    assert campaign["costs"]["completion_tokens"] == 40
    assert metrics["arms"]["stateful"]["fates"].get("refused") == 1
    page = (folder / "report.html").read_text()
    assert "a higher learning rate" in page
    assert "prepare.py" in page
    first = server.requests[-1][1]["messages"]
    assert "You improve a program" in first[0]["content"]
