"""Replay: exact where it can be computed by hand; a policy that can learn from the log does."""

from __future__ import annotations

import random

import pytest

from looper.errors import ConfigError
from looper.memory.ranking.logs import Arm, Log
from looper.memory.replay import Line, Measure, Policy, replay, table


def log_with_a_theme() -> Log:
    """Twelve variants of one good idea among forty-eight that do nothing; the good ones come last."""
    luck = random.Random(3)
    dull = [Arm(f"d{i}", (f"idea{i % 12}",), luck.gauss(-1, 1), f"idea{i % 12}") for i in range(48)]
    good = [Arm(f"g{i}", ("muon",), luck.gauss(6, 1), "tune muon") for i in range(12)]
    return Log(tuple(dull + good), sigma=1.0)


def by_policy(lines: list[Line], k: int) -> dict[Policy, Line]:
    return {line.policy: line for line in lines if line.k == k}


def test_policies_that_learn_find_the_theme_and_the_goal_helps_keyword() -> None:
    found = by_policy(replay(log_with_a_theme(), ks=(15,), resamples=60, goal="better muon"), 15)
    for policy in (Policy.OURS, Policy.UCB, Policy.KEYWORD):
        assert found[policy].over_random.low > 0.0, policy
    assert found[Policy.ORDER].gain.mean < found[Policy.RANDOM].gain.mean
    assert found[Policy.RANDOM].over_random.mean == found[Policy.RANDOM].over_random.high == 0.0


def test_with_every_arm_chosen_all_policies_reach_the_same() -> None:
    lines = replay(log_with_a_theme(), ks=(1, 60), resamples=20, goal="muon")
    assert len({round(line.gain.mean, 9) for line in lines if line.k == 60}) == 1
    assert len({line.gain.mean for line in lines if line.k == 1}) > 1


def test_gains_of_a_log_of_equal_arms_are_known_exactly() -> None:
    log = Log(tuple(Arm(str(i), (), 2.0 if i % 2 == 0 else None) for i in range(2)), sigma=1.0)
    lines = replay(log, [Policy.ORDER], ks=(2,), resamples=400)
    # Of two rows drawn with replacement the first (2.0) is there three times in four; the crash gains nothing.
    assert lines[0].gain.mean == pytest.approx(1.5, abs=0.15)
    assert (lines[0].gain.low, lines[0].gain.high) == (0.0, 2.0)


def test_the_best_single_change_needs_no_additivity() -> None:
    arms = tuple(Arm(str(i), (), 1.0) for i in range(10))
    total, best = (
        replay(Log(arms, 1.0), [Policy.RANDOM], ks=(4,), resamples=10, measure=measure)[0].gain.mean
        for measure in (Measure.SUM, Measure.BEST)
    )
    assert (total, best) == (4.0, 1.0)


def test_the_same_seed_gives_the_same_lines() -> None:
    log = log_with_a_theme()
    once = replay(log, [Policy.OURS], ks=(5,), resamples=10, seed=4)
    assert replay(log, [Policy.OURS], ks=(5,), resamples=10, seed=4) == once
    assert replay(log, [Policy.OURS], ks=(5,), resamples=10, seed=5) != once


def test_a_policy_without_what_it_needs_is_refused() -> None:
    with pytest.raises(ConfigError, match="keyword"):
        replay(log_with_a_theme(), [Policy.KEYWORD])
    with pytest.raises(ConfigError, match="choices of at least 1"):
        replay(log_with_a_theme(), [Policy.RANDOM], ks=(0,))


def test_the_table_has_a_row_for_each_policy_and_number_of_choices() -> None:
    lines = replay(log_with_a_theme(), [Policy.RANDOM, Policy.OURS], ks=(1, 2), resamples=5)
    rows = table(lines).splitlines()
    assert [row.split(" | ")[:2] for row in rows[2:]] == [
        ["| random", "1"],
        ["| random", "2"],
        ["| ours", "1"],
        ["| ours", "2"],
    ]
