"""A campaign of `benchmark=nanochat` through the command line: the memory's recipes, judged boxes, a git branch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from looper.benchmarks.nanochat.benchmark import Device, NanoChat
from looper.benchmarks.research.measurement import Measurement
from looper.protocols import Workspace
from tests.benchmarks.nanochat.autoresearch import git
from tests.benchmarks.nanochat.conftest import texts
from tests.campaigns.test_study import run

TINY = (
    *("benchmark.device=cpu", "benchmark.budget_kind=tokens", "benchmark.budget=8192", "benchmark.context=32"),
    *("benchmark.vocabulary=300", "benchmark.validation_tokens=1024", "benchmark.cache=cache", "benchmark.data=texts"),
    *("campaign.experiments=2", "campaign.baselines=2", "campaign.pairs=0", "campaign.finals=2"),
)


def looper(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "looper", "+exp=nanochat", *TINY, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@dataclass(frozen=True, kw_only=True)
class Simulated(NanoChat):
    """Programs that are longer are better, and any other change is worse."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"simulated": 1}

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        longer = len(train) - len(self.files()["train.py"])
        worth = 0.1 if longer > 50 else -0.1 if longer else 0.0
        score = 3.0 - worth + Random(f"{train}/{seed}").gauss(0.0, 0.001)
        return Measurement(status="ok", val_bpb=score, steps=1, train_seconds=1.0, wall_seconds=2.0)


def test_each_version_that_ran_is_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark = Simulated(device=Device.cpu)
    _, trials = run(Path("here"), benchmark=benchmark, experiments=5, baselines=2, pairs=0, seed=2)
    place = tmp_path / "here" / "run" / "campaigns" / "stateful-1"
    clone = place / "repository"
    fates = {trial["description"]: trial["fate"] for trial in trials["stateful-1"]}
    assert set(fates.values()) == {"keep", "discard"}
    _, *rows = [line.split("\t") for line in (place / "results.tsv").read_text().splitlines()]
    assert [(row[4], row[3]) for row in rows] == [("baseline", "keep"), ("baseline", "keep"), *fates.items()]
    for commit, *_, description in rows:
        assert git(clone, "log", "--format=%s", "--max-count=1", commit) == description
    kept = [description for description, fate in fates.items() if fate == "keep"]
    assert git(clone, "log", "--format=%s").splitlines() == [*reversed(kept), "baseline"]
    assert git(clone, "show", "HEAD:train.py") == (place / "best_train.py").read_text().strip()
    assert git(clone, "show", f"HEAD~{len(kept)}:train.py") == benchmark.files()["train.py"].strip()


@pytest.mark.slow
def test_a_campaign_ends_with_a_branch_and_a_table(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(texts()):
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    done = looper(tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "runs").glob("nanochat-*")
    metrics = json.loads((folder / "metrics.json").read_text())
    (campaign,) = metrics["campaigns"]
    assert campaign["scope"] == "nanochat/cpu/8192-tokens/split0"
    assert sum(metrics["arms"]["stateful"]["fates"].values()) == 2
    assert "notes" not in metrics, "everything is judged apart here"
    place = folder / "campaigns" / campaign["name"]
    head, *rows = [line.split("\t") for line in (place / "results.tsv").read_text().splitlines()]
    assert head == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert [row[4] for row in rows[:2]] == ["baseline", "baseline"] and len(rows) > 2
    clone = place / "repository"
    assert git(clone, "branch", "--show-current") == f"nanochat/{campaign['name']}"
    for commit, *_, description in rows:
        assert git(clone, "log", "--format=%s", "--max-count=1", commit) == description
    assert git(clone, "show", "HEAD:train.py") == (place / "best_train.py").read_text().strip()


@pytest.mark.slow
def test_what_is_missing_ends_a_run_with_a_sentence(tmp_path: Path) -> None:
    done = looper(tmp_path)
    assert done.returncode == 2
    assert (
        "looper: benchmark.data=texts could not be prepared" in done.stderr
        or "benchmark.data=texts is no" in done.stderr
    )
