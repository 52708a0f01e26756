"""The gate blocks what is known not to help, and nothing else."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from looper.memory.guard import Answer, Guard, Rows, Ruling, believe, gate, proposed
from looper.memory.rows import Decision, Experiment, Outcome, Status, Verdict
from tests.memory.sample import TRAIN, edited

LONGER = edited(("WARMDOWN = 0.5", "WARMDOWN = 0.7"))
DEEPER = edited(("DEPTH = 8", "DEPTH = 9"))
WHERE: dict[str, Any] = {
    "parent": "base",
    "campaign": "c",
    "scope": "nanochat/h100",
    "budget_kind": "seconds",
    "budget": 300.0,
}
BASE = proposed(TRAIN, TRAIN, **{**WHERE, "parent": ""}).model_copy(update={"id": "base", "diff": ""})


def tried(id: str, after: str = LONGER, **about: Any) -> Experiment:
    return proposed(TRAIN, after, **{**WHERE, **about}).model_copy(update={"id": id})


def said(experiment: str, delta: float, *, sigma: float | None = 0.001, n: int = 1, p: float | None = None) -> Verdict:
    return Verdict(
        experiment=experiment, baseline="base", delta=delta, sigma=sigma, n=n, p_improve=p, decision=Decision.DISCARD
    )


def asked(*verdicts: Verdict, rows: tuple[Experiment, ...] = (), after: str = LONGER, **about: Any) -> Answer:
    known = {row.id: row for row in rows} or {"a": tried("a")}
    history = Rows(rows=[BASE, *known.values()], verdicts=verdicts)
    return gate(proposed(TRAIN, after, **{**WHERE, **about}), history)


def test_what_was_never_tried_is_allowed() -> None:
    assert asked(after=DEEPER).ruling is Ruling.ALLOW


def test_a_repeat_that_was_replicated_and_is_worse_is_blocked_with_what_reopens_it() -> None:
    answer = asked(said("a", -0.004, n=3))
    assert answer.ruling is Ruling.BLOCK
    assert answer.evidence == ("a",)
    assert "-0.004" in answer.reason and "n 3" in answer.reason
    for condition in ("parent", "scope", "budget", "seeds", "verdicts"):
        assert any(condition in one for one in answer.reopens), condition
    assert answer.p_improve is not None and answer.p_improve < 0.001


def test_one_noisy_result_never_blocks() -> None:
    answer = asked(said("a", -0.0025))
    assert answer.ruling is Ruling.CAUTION
    assert "replicate" in answer.reason and answer.evidence == ("a",)
    assert asked(said("a", -0.0031)).ruling is Ruling.BLOCK  # beyond 3 sigma, one result is enough
    assert asked(said("a", -0.1, sigma=None)).ruling is Ruling.CAUTION  # noise that nobody measured
    assert asked(said("a", -0.1, sigma=None, p=0.01)).ruling is Ruling.CAUTION
    assert asked(said("a", -0.1, sigma=None, p=0.01, n=2)).ruling is Ruling.BLOCK


def test_a_noise_that_was_estimated_from_few_results_is_doubted_when_results_are_pooled() -> None:
    looks = [
        said("a", -0.0022).model_copy(update={"freedom": 2}),
        said("b", -0.0022).model_copy(update={"freedom": 2}),
    ]
    rows = (tried("a"), tried("b"))
    answer = asked(*looks, rows=rows)
    assert answer.ruling is Ruling.CAUTION
    assert believe(rows, Rows(rows=rows, verdicts=looks)).p_improve == pytest.approx(0.107, abs=0.001)
    sure = [look.model_copy(update={"freedom": 200}) for look in looks]
    assert asked(*sure, rows=rows).ruling is Ruling.BLOCK
    # An older file states P(improve), so sigma was estimated, but not from how many results.
    old = [look.model_copy(update={"freedom": None, "p_improve": 0.04}) for look in looks]
    assert asked(*old, rows=rows).ruling is Ruling.CAUTION


def test_many_results_around_nothing_do_not_block() -> None:
    assert asked(said("a", -0.0001, n=8)).ruling is Ruling.CAUTION


@pytest.mark.parametrize(
    ("about", "names"),
    [
        ({"scope": "nanochat/m4"}, "scope"),
        ({"parent": "other"}, "parent"),
        ({"budget": 600.0}, "budget"),
        ({"seed": 7}, "policy of seeds"),
    ],
)
def test_another_condition_reopens(about: dict[str, Any], names: str) -> None:
    answer = asked(said("a", -0.004, n=3), **about)
    assert answer.ruling is Ruling.CAUTION
    assert f"another {names}" in answer.reason


def test_new_evidence_reopens() -> None:
    rows = (tried("a"), tried("b"))
    assert asked(said("a", -0.004), said("b", -0.003), rows=rows).ruling is Ruling.BLOCK
    assert asked(said("a", -0.004), said("b", 0.003), rows=rows).ruling is Ruling.CAUTION
    assert asked(said("a", -0.004, n=3), said("a", -0.0001, n=6)).ruling is Ruling.CAUTION  # the verdict was revised


def test_a_parent_is_the_same_if_its_program_is() -> None:
    again = BASE.model_copy(update={"id": "base again"})
    answer = asked(said("a", -0.004, n=3), rows=(tried("a"), again), parent="base again")
    assert answer.ruling is Ruling.BLOCK


def test_a_campaign_whose_seeds_vary_knows_the_program_under_any_of_them() -> None:
    rows = (tried("a", seed=1), tried("b", seed=2))
    assert asked(said("a", -0.004), said("b", -0.004), rows=rows, seed=3).ruling is Ruling.BLOCK


def test_runs_that_are_deterministic_count_once_for_a_seed() -> None:
    steps = {"budget_kind": "steps", "budget": 300.0}
    rows = (tried("a", **steps), tried("b", **steps))
    verdicts = (said("a", -0.0025), said("b", -0.0025))
    assert asked(*verdicts, rows=rows, **steps).ruling is Ruling.CAUTION
    assert asked(*verdicts, rows=(tried("a"), tried("b"))).ruling is Ruling.BLOCK  # by the clock, each is a new look


def test_two_crashes_block_one_does_not() -> None:
    rows = (tried("a"), tried("b"))
    crashes = [Outcome(experiment=row.id, status=Status.CRASH) for row in rows]
    proposal = proposed(TRAIN, LONGER, **WHERE)
    assert gate(proposal, Rows(rows=rows, outcomes=crashes)).ruling is Ruling.BLOCK
    assert gate(proposal, Rows(rows=rows, outcomes=crashes[:1])).ruling is Ruling.CAUTION
    ended = Rows(rows=rows, outcomes=crashes, verdicts=[said("b", 0.01)])
    assert believe(rows, ended).crashes == 2


def test_a_repeat_of_a_gain_is_told_to_build_on_it() -> None:
    answer = asked(said("a", 0.01))
    assert answer.ruling is Ruling.CAUTION and "build on it" in answer.reason


def test_near_duplicates_changes_without_effect_and_broken_code_are_cautions() -> None:
    near = tried("a", DEEPER, description="make the network one layer deeper than it was")
    answer = asked(
        said("a", -0.01, n=9), rows=(near,), after=edited(("ASPECT_RATIO = 64", "ASPECT_RATIO = 72")),
        description="make the network one layer deeper than it was",
    )  # fmt: skip
    assert answer.ruling is Ruling.CAUTION and "alike" in answer.reason and "n 9" in answer.reason
    nothing = asked(after="# note\n" + TRAIN)
    assert nothing.ruling is Ruling.CAUTION and "does nothing" in nothing.reason
    assert "does not parse" in asked(after=TRAIN + "def (").reason


def test_the_guard_can_be_switched_off() -> None:
    history = Rows(rows=[BASE, tried("a")], verdicts=[said("a", -0.004, n=3)])
    assert gate(proposed(TRAIN, LONGER, **WHERE), history, Guard(enabled=False)).ruling is Ruling.ALLOW
    assert gate(proposed(TRAIN, LONGER, **WHERE), history, Guard(replicates=4, sigmas=9)).ruling is Ruling.CAUTION


def test_the_diff_of_a_proposal_applies_with_git(tmp_path: Path) -> None:
    for before, after in ((TRAIN, LONGER), (TRAIN, LONGER.rstrip("\n")), (TRAIN.rstrip("\n"), LONGER)):
        (tmp_path / "train.py").write_text(before)
        subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=proposed(before, after).diff, text=True, check=True)
        assert (tmp_path / "train.py").read_text() == after
