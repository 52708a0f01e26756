"""Keep or discard: the noise, the price of lines, and paired re-runs decide."""

from __future__ import annotations

import math

import pytest

from looper.campaigns.keeping import Decision, deviation, rule
from looper.campaigns.options import ArmName, Campaign
from looper.errors import ConfigError, TrainingError

OPTIONS = Campaign(gate=2.0, pairs=2, line_price=0.001)
SIGMA = 0.01


def test_a_gain_beyond_the_noise_is_kept_at_once() -> None:
    ruling = rule([0.1], sigma=SIGMA, lines=2, options=OPTIONS)
    assert ruling.decision is Decision.keep
    assert ruling.error == pytest.approx(SIGMA * math.sqrt(2))


def test_a_gain_inside_the_noise_is_run_again_until_the_seeds_are_used_up() -> None:
    assert rule([0.02], sigma=SIGMA, lines=0, options=OPTIONS).decision is Decision.repeat
    assert rule([0.02, 0.01], sigma=SIGMA, lines=0, options=OPTIONS).decision is Decision.repeat
    assert rule([0.02, 0.01, 0.0], sigma=SIGMA, lines=0, options=OPTIONS).decision is Decision.discard
    assert rule([0.02, 0.03, 0.03], sigma=SIGMA, lines=0, options=OPTIONS).decision is Decision.keep


def test_without_further_seeds_the_first_one_decides() -> None:
    options = Campaign(gate=2.0, pairs=0, line_price=0.0)
    assert rule([0.02], sigma=SIGMA, lines=0, options=options).decision is Decision.discard


def test_a_loss_is_discarded_without_another_run() -> None:
    assert rule([-0.001], sigma=SIGMA, lines=0, options=OPTIONS).decision is Decision.discard


def test_added_lines_have_to_pay_and_removed_ones_may_cost_a_little() -> None:
    gains = [0.04]
    assert rule(gains, sigma=SIGMA, lines=0, options=OPTIONS).decision is Decision.keep
    assert rule(gains, sigma=SIGMA, lines=50, options=OPTIONS).decision is Decision.discard
    assert rule([-0.001, -0.001, -0.001], sigma=SIGMA, lines=-30, options=OPTIONS).decision is Decision.keep


def test_a_program_that_ignores_its_seed_tells_no_noise() -> None:
    assert deviation({1: 3.5, 2: 3.6}) == pytest.approx(0.0707, abs=1e-4)
    with pytest.raises(TrainingError, match="nothing tells the noise"):
        deviation({1: 3.5, 2: 3.5})


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
    ],
)
def test_options_that_make_no_campaign_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Campaign(**values)  # type: ignore[arg-type]
