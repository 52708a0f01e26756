import math

import pytest
from scipy.stats import binomtest

from looper.errors import LooperError
from looper.metrics.intervals import denominator, rate
from looper.proportions import wilson


def tasks(*outcomes):
    return {f"t{i}": outcome for i, outcome in enumerate(outcomes)}


@pytest.mark.parametrize(("k", "n"), [(0, 7), (1, 10), (7, 7), (23, 50), (150, 300)])
def test_wilson_is_the_textbook_one(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(k, n):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(k, n)


def test_a_rate_of_single_outcomes_is_exactly_wilson():
    row = rate(tasks(*[1.0] * 3 + [0.0] * 17))
    assert (row.estimate, row.n, row.excluded) == (0.15, 20, 0)
    assert (row.low, row.high) == pytest.approx(wilson(3, 20))


def test_averages_over_sessions_that_always_agree_add_nothing():
    # Two worlds a task with the same result: still one trial a task.
    row = rate(tasks(*[1.0] * 5 + [0.0] * 15))
    assert (row.low, row.high) == pytest.approx(wilson(5, 20))


def test_worlds_that_cancel_are_never_taken_for_more_trials_than_there_are():
    row = rate(tasks(*[0.5] * 20))
    assert (row.low, row.high) == pytest.approx(wilson(20, 40))


def test_averages_narrow_the_interval_by_what_their_variance_says():
    values = [0.0] * 5 + [0.5] * 10 + [1.0] * 5  # variance 1/8, as of two independent sessions a task
    row = rate(tasks(*values))
    assert (row.low, row.high) == pytest.approx(wilson(20, 40))


def test_machine_failures_are_left_out_and_counted():
    row = rate(tasks(1.0, None, 0.0, None))
    assert (row.estimate, row.n, row.excluded) == (0.5, 2, 2)
    with pytest.raises(LooperError, match="all 1 failed"):
        rate(tasks(None))


@pytest.mark.parametrize("value", [1.5, -0.1, math.nan])
def test_an_outcome_outside_the_unit_interval_is_an_error(value):
    with pytest.raises(ValueError, match="outside"):
        rate(tasks(value))


def test_denominator():
    assert denominator([0.0, 1.0]) == 1
    assert denominator([0.5, 1 / 3, 1.0]) == 6
    assert denominator([math.pi / 4]) is None
