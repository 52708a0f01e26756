"""Stored measurements, and the lock that trainings hold whose speed decides their result."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from looper.benchmarks.research.measurement import Measurement
from looper.campaigns.measuring import machine
from looper.errors import TrainingError
from looper.protocols import Workspace
from looper.report.campaign import cost_lines
from tests.campaigns.test_study import Simulated, run


@dataclass(frozen=True, kw_only=True)
class Crowded(Simulated):
    """A machine without room for the first training."""

    tried: list[tuple[str, int]] = field(default_factory=list)

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        self.tried.append((train, seed))
        if len(self.tried) == 1:
            return Measurement(status="crash", reason="out of memory", log="another job is on the card")
        return super().measure(train, seed=seed, workspace=workspace)


def test_a_baseline_that_failed_is_measured_anew_by_the_same_command(tmp_path: Path) -> None:
    benchmark = Crowded()
    with pytest.raises(TrainingError, match="the same command measures it anew:\nanother job is on the card"):
        run(tmp_path, benchmark=benchmark, experiments=1)
    metrics, _ = run(tmp_path, benchmark=benchmark, experiments=1)
    assert metrics["campaigns"][0]["trials"] == 1
    assert benchmark.tried.count(benchmark.tried[0]) == 2


def test_one_training_whose_speed_counts_goes_on_at_a_time(capfd: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    begun = threading.Event()

    def other() -> None:
        begun.set()
        with machine():
            order.append("other")

    with machine():
        thread = threading.Thread(target=other)
        thread.start()
        begun.wait()
        thread.join(timeout=0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert "another run trains on this machine" in capfd.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Ending(Simulated):
    """A machine that trains nothing after the first three seeds."""

    seeds: dict[int, None] = field(default_factory=dict)

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        if len(self.seeds) < 3:
            self.seeds[seed] = None
        if seed not in self.seeds:
            return Measurement(status="crash", reason="out of memory")
        return super().measure(train, seed=seed, workspace=workspace)


def test_final_runs_without_a_score_are_no_result(tmp_path: Path) -> None:
    metrics, _ = run(tmp_path, benchmark=Ending(), experiments=1, pairs=0)
    assert "no final run of the best program got to a score" in metrics["verdict"]
    assert any("2 final runs of the best program had no score" in line for line in cost_lines(metrics))


def test_what_is_asked_for_twice_is_counted_once(tmp_path: Path) -> None:
    metrics, _ = run(tmp_path, benchmark=Simulated(), experiments=1, pairs=0, gate=1000.0)
    assert metrics["campaigns"][0]["kept"] == []
    assert metrics["costs"]["runs"] == 3 + 1 + 2  # the best program is the unchanged one
