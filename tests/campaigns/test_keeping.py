"""Keep or discard: the noise, the price of lines, and paired re-runs decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from looper.campaigns.keeping import Decision, added, critical, noise, rule
from looper.campaigns.options import ArmName, Campaign
from looper.errors import ConfigError, TrainingError

OPTIONS = Campaign(gate=2.0, pairs=2, line_price=0.001)
SIGMA = 0.01
KNOWN = 10_000
"""Degrees of freedom with which the noise is as good as known."""


def decided(gains: list[float], lines: int = 0, freedom: int = KNOWN, options: Campaign = OPTIONS) -> Decision:
    return rule(gains, sigma=SIGMA, freedom=freedom, lines=lines, options=options).decision


def test_a_gain_beyond_the_noise_is_kept_at_once() -> None:
    ruling = rule([0.1], sigma=SIGMA, freedom=KNOWN, lines=2, options=OPTIONS)
    assert ruling.decision is Decision.keep
    assert ruling.error == pytest.approx(SIGMA * math.sqrt(2))


def test_a_gain_inside_the_noise_is_run_again_until_the_seeds_are_used_up() -> None:
    assert decided([0.02]) is Decision.repeat
    assert decided([0.02, 0.01]) is Decision.repeat
    assert decided([0.02, 0.01, 0.0]) is Decision.discard
    assert decided([0.02, 0.03, 0.03]) is Decision.keep


def test_without_further_seeds_the_first_one_decides() -> None:
    assert decided([0.02], options=Campaign(gate=2.0, pairs=0, line_price=0.0)) is Decision.discard


def test_a_loss_is_discarded_without_another_run() -> None:
    assert decided([-0.001]) is Decision.discard


def test_added_lines_have_to_pay_and_removed_ones_excuse_no_loss() -> None:
    assert decided([0.04]) is Decision.keep
    assert decided([0.04], lines=50) is Decision.discard
    assert decided([0.0, 0.0, 0.0], lines=-30) is Decision.discard


def test_few_replicates_ask_for_more_than_many() -> None:
    assert critical(2.0, 2) == pytest.approx(stats.t.ppf(stats.norm.cdf(2.0), 2))
    assert decided([0.04], freedom=2) is Decision.repeat
    assert decided([0.04], freedom=50) is Decision.keep


@pytest.mark.parametrize("freedom", [2, 4, 10])
def test_a_change_that_does_nothing_passes_a_look_at_the_gates_rate(freedom: int) -> None:
    draw = np.random.default_rng(freedom)
    kept, count = 0, 6000
    options = Campaign(gate=2.0, pairs=0, line_price=0.0)
    for _ in range(count):
        sigma = math.sqrt(draw.chisquare(freedom) / freedom)
        gain = draw.normal(0.0, math.sqrt(2.0))
        kept += rule([gain], sigma=sigma, freedom=freedom, lines=0, options=options).decision is Decision.keep
    assert kept / count == pytest.approx(1 - stats.norm.cdf(2.0), abs=0.006)


def test_the_noise_is_pooled_over_programs() -> None:
    groups = [{1: 3.5, 2: 3.6, 3: 3.4}, {1: 2.0, 2: 2.1}, {1: 1.0}]
    sigma, freedom = noise(groups)
    assert freedom == 3
    assert sigma == pytest.approx(math.sqrt((2 * np.var([3.5, 3.6, 3.4], ddof=1) + np.var([2.0, 2.1], ddof=1)) / 3))


def test_a_program_that_ignores_its_seed_tells_no_noise() -> None:
    with pytest.raises(TrainingError, match="nothing tells the noise"):
        noise([{1: 3.5, 2: 3.5}])


def test_comments_docstrings_and_layout_are_no_lines() -> None:
    before = 'def f(x):\n    """Say."""\n    # why\n    y = x + 1\n    return y\n'
    assert added(before, "def f(x):\n    y = (\n        x + 1\n    )\n    return y\n") == 0
    assert added(before, before.replace("    return y", "    y *= 2\n    return y")) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"arms": []}, "campaign.arms is empty"),
        ({"arms": [ArmName.tpe, ArmName.tpe]}, "twice"),
        ({"experiments": 0}, "campaign.experiments=0"),
        ({"baselines": 1}, "at least 2"),
        ({"hours": 0.0}, "campaign.hours=0.0"),
        ({"cost": math.nan}, "campaign.cost=nan"),
        ({"gate": -1.0}, "campaign.gate"),
        ({"past": "memory.db"}, "memory or shuffled"),
    ],
)
def test_options_that_make_no_campaign_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Campaign(**values)  # type: ignore[arg-type]
