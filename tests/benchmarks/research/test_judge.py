"""The judge's score is the one that `python train.py` prints; runs that fail say why; what decides a score is named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from looper.benchmarks.research import benchmark
from looper.benchmarks.research.benchmark import Research
from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.measurement import Measurement
from looper.benchmarks.research.respondent import respondent
from looper.errors import ConfigError
from looper.records import digest_of
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import IS_LINUX, Level
from tests.benchmarks.research.judged import BEGIN, FIRST, TINY, TRAIN, at, edited, measured


@pytest.fixture(scope="module")
def honest(workspace: LocalWorkspace) -> Measurement:
    return measured(TRAIN, workspace)


def unjudged(folder: Path, seed: int, tokens: int) -> float:
    """Run the task as a user does, with the validation data at hand, and return what it prints."""
    for name, text in TINY.files().items():
        (folder / name).write_text(text)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"RESEARCH_TOKENS": str(tokens), "RESEARCH_SEED": str(seed)}
    command = [sys.executable, "train.py"]
    said = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^val_bpb: +(\S+)$", said, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_the_score_is_the_one_that_an_unjudged_run_prints(honest: Measurement, tmp_path: Path) -> None:
    assert honest.val_bpb == pytest.approx(unjudged(tmp_path, 2, 1024), abs=1e-6)


def test_a_measurement_says_what_was_spent(honest: Measurement) -> None:
    assert (honest.status, honest.reason, honest.cheat, honest.reported_bpb) == ("ok", "", None, None)
    assert (honest.steps, honest.tokens) == (2, 1024)
    assert honest.train_seconds is not None and 0 < honest.train_seconds < honest.wall_seconds
    assert honest.peak_memory_mb is not None and honest.peak_memory_mb > 50
    assert "val_bpb:          nan" in honest.log and "num_steps:        2" in honest.log
    assert Measurement.model_validate_json(honest.model_dump_json()) == honest


@pytest.mark.slow
def test_a_measurement_repeats_and_its_seed_counts(honest: Measurement, workspace: LocalWorkspace) -> None:
    assert measured(TRAIN, workspace).val_bpb == honest.val_bpb


@pytest.mark.slow
@pytest.mark.parametrize("level", ["landlock", "rlimits"])
def test_weaker_levels_measure_the_same(level: str, honest: Measurement) -> None:
    if level == "landlock" and not IS_LINUX:
        pytest.skip("Landlock needs Linux")
    found = measured(TRAIN, LocalWorkspace(isolation=Level(level)))
    assert (found.status, found.val_bpb) == ("ok", honest.val_bpb)


@pytest.mark.slow
def test_what_libraries_do_by_themselves_is_no_cheat(workspace: LocalWorkspace) -> None:
    own = "    import warnings; warnings.warn('shown with its line'); torch.Generator().manual_seed(SEED)\n"
    library = "    other = torch.optim.AdamW(model.parameters(), lr=LR)\n"
    found = measured(
        edited(
            ("    updating = list(optimisers(model))\n", f"{own}{library}"),
            (
                "        for optimiser in updating:\n            optimiser.step((step + 1) / steps)\n",
                "        other.step()\n",
            ),
        ),
        workspace,
    )
    assert found.status == "ok", found
    assert "UserWarning: shown with its line" in found.log


def test_an_exception_is_a_crash_with_its_words(workspace: LocalWorkspace) -> None:
    found = measured(at(FIRST, "raise ValueError('no such width')"), workspace)
    assert (found.status, found.reason) == ("crash", "train.py failed: ValueError: no such width")
    assert 'File "train.py", line' in found.log and found.log.endswith("ValueError: no such width\n")


def test_code_that_cannot_be_parsed_is_a_crash(workspace: LocalWorkspace) -> None:
    found = measured(at(FIRST, "def"), workspace)
    assert found.status == "crash" and "SyntaxError" in found.reason


def test_a_run_that_hands_nothing_over_is_a_crash(workspace: LocalWorkspace) -> None:
    found = measured(at(FIRST, "raise SystemExit"), workspace)
    assert (found.status, found.reason[:40]) == ("crash", "train.py ended without handing a model o")


def test_more_memory_than_there_is_is_a_crash(workspace: LocalWorkspace) -> None:
    found = measured(at(FIRST, "x = bytearray(1 << 36)"), workspace)
    assert (found.status, found.reason) == ("crash", "train.py failed: MemoryError")


@pytest.mark.slow
def test_a_model_of_another_shape_than_the_file_says_is_a_crash(workspace: LocalWorkspace) -> None:
    found = measured(edited((BEGIN, f"    GPTConfig.__init__.__defaults__ = (256, 64, 1, 64, 4)\n{BEGIN}")), workspace)
    assert found.status == "crash"
    assert "gave no answers in GPT(GPTConfig())" in found.reason and "Missing key(s)" in found.reason


def test_a_run_without_end_is_stopped(workspace: LocalWorkspace) -> None:
    found = measured(TRAIN, workspace, replace(TINY, limit_seconds=0.2))
    assert (found.status, found.reason) == ("timeout", "the run was stopped after 0.2 seconds")


@pytest.mark.slow
def test_a_budget_of_seconds_ends_the_training(workspace: LocalWorkspace) -> None:
    short = Research(budget_kind=BudgetKind.seconds, budget=0.05, pace=2e6)
    found = measured(TRAIN, workspace, short)
    assert found.status == "ok", found
    assert found.tokens is not None and found.tokens < 100_000


@pytest.mark.slow
def test_who_answers_may_be_started_before_there_is_a_model(
    workspace: LocalWorkspace, honest: Measurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "HEAD_START", 0.0)
    assert measured(TRAIN, workspace).val_bpb == honest.val_bpb
    assert measured("x = (\n", workspace).status == "crash"  # they wait for nothing, and are let go


def test_who_is_not_asked_is_let_go(workspace: LocalWorkspace) -> None:
    source, command = TINY._source(TRAIN, "answer.py"), TINY._command("answer.py", 1)
    with respondent(workspace, source, command, limit=60) as one:
        pass
    done = one._running.result(timeout=0)
    assert (done.exit_code, done.timed_out, done.output) == (0, False, "")


def test_a_task_holds_the_files_and_the_rules() -> None:
    task = TINY.task("x = 1\n", id="research/1")
    assert sorted(task.source.files) == ["prepare.py", "program.md", "train.py"]
    assert task.source.files["train.py"] == "x = 1\n"
    assert task.issue.startswith(TINY.goal) and "evaluate_bpb(model)" in task.issue
    assert "difflib.py" in task.source.sealed and "json/decoder.py" not in task.source.sealed
    assert TINY.changed(task.source.files, "x = 1\n") == ()
    assert TINY.changed(task.source.files | {"train.py": "x = 2\n", "new.py": ""}, "x = 1\n") == ("new.py", "train.py")


def test_what_decides_a_score_is_in_the_digest() -> None:
    others = [replace(TINY, budget=3), replace(TINY, corpus_split=1), replace(TINY, limit_seconds=500)]
    assert len({TINY.digest, *(other.digest for other in others)}) == 4
    assert replace(TINY, goal="another", scope="elsewhere").digest == TINY.digest == digest_of(TINY.identity)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"budget": 100}, "less than one step of 8 x 64"),
        ({"budget": 1000.5}, "no whole number of tokens"),
        ({"budget_kind": BudgetKind.seconds, "budget": 600}, "raise the limit"),
        ({"corpus_split": -1}, "corpus_split=-1 must be 0 or above"),
        ({"limit_seconds": 0}, "limit_seconds=0 must be above 0"),
        ({"pace": 0}, "pace=0 must be above 0"),
        ({"goal": " "}, "goal is empty"),
    ],
)
def test_values_that_no_run_could_use_are_refused(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Research(**values)  # type: ignore[arg-type]
