"""Statistics of campaigns, against independent computations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from looper.metrics.campaigns import compare_gains, interval, replicates_needed, sign_flips, spread_at, t_power


def test_the_interval_is_students() -> None:
    values = [0.1, 0.3, 0.2, 0.25]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert interval([0.5])["low"] is None


def test_sign_flips_count_every_assignment() -> None:
    differences = [0.3, -0.1, 0.2, 0.4, 0.05]
    flips = [sum(s * d for s, d in zip(row, differences, strict=True)) for row in itertools.product((1, -1), repeat=5)]
    expected = np.mean([abs(total) >= sum(differences) - 1e-12 for total in flips])
    assert sign_flips(differences) == pytest.approx(expected)
    assert sign_flips([1.0] * 6) == pytest.approx(2 / 64)
    assert sign_flips([0.0, 0.0]) == 1.0


def test_power_is_that_of_simulated_t_tests() -> None:
    draw = np.random.default_rng(1)
    data = draw.normal(0.8, 1.0, size=(20_000, 12))
    rejected = np.mean(stats.ttest_1samp(data, 0.0, axis=1).pvalue < 0.05)
    assert t_power(0.8, 12) == pytest.approx(rejected, abs=0.01)


def test_the_replicates_that_are_needed_reach_the_power_and_one_less_does_not() -> None:
    differences = [1.0, 2.0, 0.5, -0.5]
    effect = np.mean(differences) / np.std(differences, ddof=1)
    needed = replicates_needed(differences)
    assert needed is not None
    assert t_power(effect, needed) >= 0.8 > t_power(effect, needed - 1)
    assert replicates_needed([1.0]) is None
    assert replicates_needed([1.0, -1.0]) is None, "no difference cannot be found"


def test_a_comparison_is_paired_by_replicate() -> None:
    a = {i: 0.1 * i + 0.05 + 0.001 * i for i in range(1, 9)}
    b = {i: 0.1 * i for i in range(1, 10)}
    found = compare_gains(a, b)
    assert (found["n"], found["won"], found["lost"], found["verdict"]) == (8, 8, 0, "better")
    assert compare_gains(b, a)["verdict"] == "worse"
    assert compare_gains({1: 0.3, 2: -0.3}, {1: 0.0, 2: 0.0})["verdict"] == "inconclusive"
    assert compare_gains({1: 0.3}, {1: 0.0})["verdict"] == "inconclusive"


def test_an_open_comparison_never_asks_for_replicates_that_there_are() -> None:
    differences = [0.1, 0.5, 0.5, 0.5, 0.5, -0.01]
    assert replicates_needed(differences) == 6
    found = compare_gains(dict(enumerate(differences)), dict.fromkeys(range(6), 0.0))
    assert (found["verdict"], found["replicates_needed"]) == ("inconclusive", 7), "the sign flips are not convinced"
    clear = compare_gains(dict(enumerate([0.5, 0.6, 0.7] * 2)), dict.fromkeys(range(6), 0.0))
    assert (clear["verdict"], clear["replicates_needed"]) == ("better", 3), "what decided is told as it is"


def test_the_curve_holds_each_arms_spread() -> None:
    rows = spread_at([[3.0, 2.5, 2.4], [3.1, 3.1, 3.0], [2.9, 2.8]])
    assert rows[1] == {"low": 2.5, "median": 2.8, "high": 3.1}
    assert rows[2]["low"] == 2.4
