"""A user's checkout: run in clones, never written to; what its run prints is read, and doubted where it can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from looper.benchmarks.nanochat.benchmark import Device, NanoChat
from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.measurement import Cheat, Measurement
from looper.errors import ConfigError
from looper.workspaces.local import LocalWorkspace
from tests.benchmarks.nanochat.autoresearch import FILES, TRAIN, git, option, repository

WORKSPACE = LocalWorkspace()
BEFORE = "val_bpb = evaluate_bpb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("user") / "autoresearch")


def measured(folder: Path, code: str, **values: float) -> Measurement:
    return option(folder, **values).measure(code, seed=5, workspace=WORKSPACE)


def at(line: str) -> str:
    assert TRAIN.count(BEFORE) == 1
    return TRAIN.replace(BEFORE, f"{line}\n{BEFORE}")


def test_the_printed_line_is_the_score_and_the_checkout_stays_as_it_is(folder: Path) -> None:
    found = measured(folder, TRAIN.replace("LR = 0.04", "LR = 0.1"))
    assert (found.status, found.cheat, found.reason) == ("ok", None, "")
    assert found.val_bpb == found.reported_bpb == pytest.approx(1.0, abs=1e-3)
    assert (found.train_seconds, found.peak_memory_mb, found.steps) == (1.0, 2048.0, 953)
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "branch", "--list") == "* master"


def test_it_is_said_that_nothing_has_judged_the_score(folder: Path) -> None:
    notes = " ".join(option(folder).notes)
    assert "the line that the checkout's own run prints" in notes and "not sandboxed" in notes


@pytest.mark.parametrize(
    ("code", "status", "cheat", "says"),
    [
        (at("raise RuntimeError('CUDA error')"), "crash", None, r"exit code 1: RuntimeError: CUDA error"),
        (at("raise RuntimeError('CUDA out of memory')"), "crash", None, r"used up its memory"),
        (TRAIN.replace("{val_bpb:.6f}", "{float('nan')}"), "crash", None, "printed no finite val_bpb"),
        (at("print('val_bpb: 0.1')"), "refused", Cheat.PRINTED, r"printed val_bpb 0\.1, 1\.00"),
        (at("open('prepare.py', 'a').write('#')"), "refused", Cheat.PREPARE, "the run changed prepare.py"),
        (at("evaluate_bpb = lambda *_: 0.5"), "refused", Cheat.SCORE, "gives evaluate_bpb another meaning"),
        (TRAIN.replace("{TIME_BUDGET:.1f}", "{9 * TIME_BUDGET:.1f}"), "refused", Cheat.LONGER, "trained for 9 s"),
    ],
)
def test_a_run_without_an_honest_score_has_none(
    folder: Path, code: str, status: str, cheat: Cheat | None, says: str
) -> None:
    found = measured(folder, code)
    assert (found.status, found.cheat, found.val_bpb) == (status, cheat, None), found
    assert re.search(says, found.reason), found.reason
    assert status != "crash" or "nan" in found.log or "RuntimeError" in found.log


def test_a_run_without_end_is_stopped_with_all_that_it_started(folder: Path, tmp_path: Path) -> None:
    late = tmp_path / "late"
    child = f"import time; time.sleep(3); open({str(late)!r}, 'w')"
    code = at(f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)")
    found = measured(folder, code, limit_seconds=1.5)
    assert (found.status, found.reason) == ("timeout", "the run was stopped after 1.5 seconds")
    assert not late.exists()


def test_secrets_of_the_environment_are_kept_from_a_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sesame")
    found = measured(folder, at("print('told', os.environ.get('SOME_API_KEY'))"))
    assert "told None" in found.log


def test_an_agent_is_shown_the_files_and_the_budget_that_counts(folder: Path) -> None:
    task = option(folder).task("x = 1\n", id="t")
    assert task.source.files == FILES | {"train.py": "x = 1\n"}, "a picture is not shown"
    assert "The budget is 1 seconds of training." in task.issue and "after 60 seconds" in task.issue
    assert option(folder).contract("diff --git a/prepare.py b/prepare.py\n--- a/prepare.py\n+++ b/prepare.py\n")


def test_what_decides_a_run_is_in_its_identity(folder: Path, tmp_path: Path) -> None:
    other = repository(tmp_path / "other")
    assert option(other).identity == option(folder).identity
    (third := repository(tmp_path / "third")).joinpath("prepare.py").write_text(FILES["prepare.py"] + "# 2\n")
    git(third, "commit", "--quiet", "--all", "--message", "another score")
    assert option(third).identity != option(folder).identity
    assert option(third).conditions != option(folder).conditions


def test_what_is_no_checkout_is_refused_with_the_next_step(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.repo=/nowhere is no folder"):
        NanoChat(repo="/nowhere").files()
    with pytest.raises(ConfigError, match=r"is no git repository with a commit .* git init"):
        option(tmp_path).files()
    empty = repository(tmp_path / "empty")
    git(empty, "rm", "--quiet", "prepare.py")
    git(empty, "commit", "--quiet", "--message", "gone")
    with pytest.raises(ConfigError, match=r"has no prepare\.py at its HEAD"):
        option(empty).files()
    dirty = repository(tmp_path / "dirty")
    (dirty / "train.py").write_text("")
    with pytest.raises(ConfigError, match=r"not committed \(M train\.py\); commit or stash"):
        option(dirty).files()
    with pytest.raises(ConfigError, match=r"TIME_BUDGET = 1, which counts: give benchmark\.budget=1"):
        option(folder, budget=30.0).files()


@pytest.mark.parametrize(
    "values", [{"data": "texts"}, {"device": Device.cpu}, {"budget_kind": BudgetKind.tokens}, {"corpus_split": 1}]
)
def test_values_that_a_checkout_would_ignore_are_refused(values: dict[str, object]) -> None:
    (name,) = values
    with pytest.raises(ConfigError, match=rf"benchmark\.{name}=.* has no effect with benchmark\.repo=somewhere"):
        NanoChat(repo="somewhere", **values)  # type: ignore[arg-type]
