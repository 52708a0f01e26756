"""The main job, small: bundled model, real sandbox, a real adapter, a placebo, and the report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    "benchmark.size=18",
    "benchmark.probe_tasks=3",
    "curriculum.train=10",
    "curriculum.held_out=8",
    "attempts=2",
    "trainer.epochs=1",
)


def looper(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looper", *SMALL, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("main")
    done = looper(cwd)
    assert done.returncode == 0, done.stderr
    assert "sandbox" in done.stderr
    (cwd / "told.txt").write_text(done.stdout)
    return cwd


@pytest.fixture(scope="module")
def folder(finished: Path) -> Path:
    (only,) = (finished / "outputs" / "runs").iterdir()
    return only


@pytest.fixture(scope="module")
def metrics(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text())


def test_metrics_hold_what_was_promised(metrics: Any) -> None:
    for arm in ("base", "adapted", "placebo"):
        rate = metrics["resolve_rate"][arm]
        assert rate["n"] == 8
        assert 0 <= rate["low"] <= rate["estimate"] <= rate["high"] <= 1
    for name in ("forward_transfer", "transfer_over_placebo"):
        for found in (metrics[name], *(family[name] for family in metrics["families"].values())):
            assert {"estimate", "low", "high", "n", "p_value", "detectable_effect"} <= set(found)
            assert found["low"] <= found["estimate"] <= found["high"]
    rates = metrics["resolve_rate"]
    difference = rates["adapted"]["estimate"] - rates["base"]["estimate"]
    assert metrics["forward_transfer"]["estimate"] == pytest.approx(difference)
    assert set(metrics["families"]) == {"conventions", "natural", "seen"}
    assert metrics["n_worlds"] == 2


def test_the_placebo_learned_from_no_more_than_the_adapted_arm(metrics: Any) -> None:
    own = {row["world"]: row["examples"] for row in metrics["learning"]["adapted"]}
    placebo = {row["world"]: row["examples"] for row in metrics["learning"]["placebo"]}
    assert set(own) == set(placebo) == {"A", "B"}
    assert all(0 < placebo[world] <= own[world] for world in own)


def test_the_two_worlds_learned_from_opposite_sessions(metrics: Any) -> None:
    own = {row["skill"] for row in metrics["learning"]["adapted"]}
    placebo = {row["skill"] for row in metrics["learning"]["placebo"]}
    assert len(own) == 2 and len(own | placebo) == 3, "the placebo is one for both worlds"


def test_probes_without_a_world_are_tried_once_an_arm(metrics: Any, folder: Path) -> None:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    sessions = [e["data"] for e in events if e["kind"] == "session"]
    for arm in ("base", "adapted", "placebo"):
        tried = [s["task"] for s in sessions if s["phase"] == f"probe ({arm})" and "natural" in s["task"]]
        assert len(tried) == len(set(tried)) == 3
        assert metrics["families"]["natural"]["resolve_rate"][arm]["n"] == 3


def test_the_adapter_is_a_plain_peft_folder(finished: Path) -> None:
    configs = list((finished / "outputs" / "adapters").rglob("adapter_config.json"))
    assert len(configs) == 3
    made = json.loads(configs[0].read_text())
    assert (made["peft_type"], made["r"], made["lora_alpha"]) == ("LORA", 16, 32)


def test_the_run_ends_with_its_adapters(finished: Path, folder: Path, metrics: Any) -> None:
    told = re.findall(r"^adapter: (\S+) \(looper export (\S+) ", (finished / "told.txt").read_text(), re.MULTILINE)
    assert len(told) == 2, "one for each world"
    for path, exported in told:
        assert path == exported and path.startswith("outputs/adapters/")
        assert (finished / path / "adapter_config.json").is_file()
        assert path in (folder / "report.html").read_text()
    assert [f"outputs/{row['adapters'][0]}" for row in metrics["learning"]["adapted"]] == [path for path, _ in told]
    assert {row["stage"] for row in metrics["conduct"]["adapted"]} == {1}
    assert all(row["served"] is None for row in metrics["usage"].values()), "the bundled model is not metered"


class Links(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")]


def test_the_page_is_one_file_that_fetches_nothing(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert links.fetched == []
    assert not re.search(r"url\(\s*['\"]?http", page)
    assert "<svg" in page
    assert "conventions" in page
    assert len(page) < 3_000_000


def test_the_same_command_again_shows_the_result_at_once(finished: Path) -> None:
    again = looper(finished)
    assert again.returncode == 0
    assert "Resolved on held-out tasks" in again.stdout
    assert "sessions" not in again.stderr


def test_finished_runs_are_read_back_by_the_command_line(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "looper.cli", "report", str(folder), "--csv", str(tmp_path / "t.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "conventions" in done.stdout
    assert "conventions" in (tmp_path / "t.csv").read_text()
    wrong = subprocess.run([*command[:4], str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1
    assert "is no run: give folders below outputs/runs" in wrong.stderr


def test_a_change_of_seed_shares_nothing_and_a_change_of_probes_shares_the_rest(finished: Path) -> None:
    before = len(list((finished / "outputs" / "trajectories").rglob("*.json")))
    done = looper(finished, "benchmark.probes=[seen]")
    assert done.returncode == 0, done.stderr
    assert len(list((finished / "outputs" / "trajectories").rglob("*.json"))) == before
