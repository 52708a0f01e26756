"""Conduct after each stage: sessions given up too early, replies that are no action, steps."""

import pytest

from looper.metrics.conduct import conduct
from looper.metrics.intervals import rate
from looper.metrics.summary import summarise
from looper.proportions import wilson
from tests.metrics.test_summary import row, three_arms


def test_a_stage_has_its_own_rates():
    before = [row("base", f"t{i}", False, steps=5, malformed=i % 2) for i in range(10)]
    after = [row("base", f"t{i}", False, stage=1, steps=2, patched=i > 3) for i in range(10)]
    after += [row("base", "broken", False, stage=1, infrastructure=True, malformed=4)]
    first, second = conduct([*after, *before])
    assert (first["stage"], second["stage"], first["sessions"], second["sessions"]) == (0, 1, 10, 10)
    assert first["premature_done"]["estimate"] == 0.0 and first["parse_error"]["estimate"] == 5 / 50
    assert second["premature_done"] == rate({str(i): float(i < 4) for i in range(10)}).model_dump()
    assert (second["parse_error"]["estimate"], second["parse_error"]["n"]) == (0.0, 20)
    assert second["steps"] == {"median": 2.0, "p90": 2.0}


def test_only_done_without_a_patch_is_premature():
    rows = [row("base", "a", False, patched=False, exit="steps"), row("base", "b", False, patched=False)]
    assert conduct(rows)[0]["premature_done"]["estimate"] == 0.5


def test_a_session_that_worlds_share_counts_once():
    shared = [row("base", "t", False, world=world, session="s", steps=4, malformed=1) for world in "AB"]
    (found,) = conduct(shared)
    assert (found["sessions"], found["parse_error"]["n"], found["premature_done"]["n"]) == (1, 4, 1)


def test_the_interval_knows_that_errors_come_together():
    spread = conduct([row("base", f"t{i}", False, steps=10, malformed=1) for i in range(20)])[0]["parse_error"]
    massed = [row("base", f"t{i}", False, steps=10, malformed=10 * (i < 2)) for i in range(20)]
    together = conduct(massed)[0]["parse_error"]
    assert spread["estimate"] == together["estimate"] == pytest.approx(0.1)
    # whole sessions of errors are as good as one step a session: 20 tasks, two of them bad
    assert (together["low"], together["high"]) == pytest.approx(wilson(0.1 * 19, 19))
    assert together["low"] < spread["low"] < spread["high"] < together["high"]
    none = conduct([row("base", f"t{i}", False, steps=10) for i in range(20)])[0]["parse_error"]
    assert none["high"] == wilson(0, 20)[1]


def test_nothing_measured_is_none():
    (found,) = conduct([row("base", "t", False, infrastructure=True)])
    assert found["premature_done"] is found["parse_error"] is None and found["steps"]["median"] is None
    (silent,) = conduct([row("base", "t", False, steps=0)])
    assert silent["parse_error"] is None


def test_every_probed_arm_is_told_and_no_other():
    metrics = summarise([*three_arms(), row("train", "x", True)], primary="natural")
    assert {arm: [r["stage"] for r in rows] for arm, rows in metrics["conduct"].items()} == {
        "base": [0],
        "adapted": [1],
        "placebo": [1],
    }
