"""A campaign on a user's checkout: a branch and a table in a clone, with a note on what the score is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from looper.models.recipe import Recipe
from looper.report.campaign import campaign_table
from looper.report.campaign_page import campaign_page
from tests.benchmarks.nanochat.autoresearch import git, option, repository
from tests.campaigns.test_study import Scripted, run

EDITS = [
    '<edit path="train.py">\nLR = 0.04\n=======\nLR = 0.1\n</edit>',
    '<edit path="train.py">\nDEPTH = 8\n=======\nDEPTH = 8 // 0\n</edit>',
    '<edit path="prepare.py">\nTIME_BUDGET = 1\n=======\nTIME_BUDGET = 9\n</edit>',
    '<edit path="train.py">\nLR = 0.1\n=======\nLR = 0.3\n</edit>',
]
WORDS = ["a higher rate", "no depth", "more time", "too high"]


class Researcher(Scripted):
    """Makes one edit a session."""

    def __init__(self) -> None:
        self.session = -1
        super().__init__(self.turn)

    def turn(self, turn: int) -> str:
        self.session += turn == 0
        return EDITS[self.session] if turn == 0 else f"<think>{WORDS[self.session]}</think><done/>"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any, Any]:
    place = tmp_path_factory.mktemp("campaign")
    user = repository(place / "autoresearch")
    metrics, trials = run(place, model=Researcher(), benchmark=option(user), experiments=4, baselines=2, pairs=0)
    return place / "run" / "campaigns" / "stateful-1", user, metrics, trials["stateful-1"]


def test_each_trial_ends_as_it_should(played: Any) -> None:
    _, _, _, trials = played
    assert [trial["fate"] for trial in trials] == ["keep", "crash", "refused", "discard"]
    assert "ZeroDivisionError" in trials[1]["reason"] and "ZeroDivisionError" in trials[1]["log"]
    assert trials[2]["reason"] == "the patch changes prepare.py; only train.py may change"


def test_a_branch_of_a_clone_and_its_table_tell_the_campaign(played: Any) -> None:
    place, user, _, _ = played
    clone = place / "repository"
    assert git(clone, "branch", "--show-current") == "autoresearch/stateful-1"
    assert git(clone, "log", "--format=%s", "--max-count=2").splitlines() == ["a higher rate", "all"]
    assert "LR = 0.1" in git(clone, "show", "HEAD:train.py")
    assert git(clone, "tag").splitlines() == ["tried/stateful-1/2", "tried/stateful-1/4"]
    head, *rows = [line.split("\t") for line in (place / "results.tsv").read_text().splitlines()]
    assert head == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert [row[3:] for row in rows] == [
        *[["keep", "baseline"]] * 2,
        ["keep", "a higher rate"],
        ["crash", "no depth"],
        ["discard", "too high"],
    ]
    assert rows[3][1:3] == ["0.000000", "0.0"] and rows[2][2] == "2.0"
    for commit, *_, description in rows:
        said = git(clone, "log", "--format=%s", "--max-count=1", commit)
        assert said == ("all" if description == "baseline" else description)
    assert git(user, "status", "--porcelain") == "" and git(user, "branch", "--list") == "* master"


def test_the_table_says_that_the_score_is_the_runs_own(played: Any) -> None:
    _, _, metrics, trials = played
    console = Console(width=200)
    with console.capture() as shown:
        console.print(campaign_table(metrics))
    assert "Note: val_bpb is the line that the checkout's own run prints" in shown.get()
    page = campaign_page(metrics, facts={}, trials={"stateful-1": trials}, title="t")
    assert "is the line that the checkout" in page
    without = {key: value for key, value in metrics.items() if key != "notes"}
    assert "is the line" not in campaign_page(without, facts={}, trials={"stateful-1": trials}, title="t")


def test_a_recipe_that_does_not_apply_is_said(tmp_path: Path) -> None:
    user = repository(tmp_path / "autoresearch")
    _, trials = run(tmp_path, model=Recipe(), benchmark=option(user), experiments=1, baselines=2, finals=2)
    (trial,) = trials["stateful-1"]
    assert trial["fate"] == "none" and "none of the methods that were shown applies to this train.py" in trial["reason"]
