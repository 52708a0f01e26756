"""What has no effect in a campaign is refused with the way out, and what is composed by itself passes."""

from __future__ import annotations

import pytest

from looper.config import read
from looper.errors import ConfigError
from tests.test_config import composed


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["curriculum=random"], ["curriculum.order=random", "leave it out"]),
        (["attempts=5"], ["attempts=5", "campaign.experiments", "campaign.proposals"]),
        (["retrieval=fts"], ["retrieval=fts", "retrieval=none", "campaign.arms"]),
        (["data.cap=1"], ["data.cap=1", "strategy=sft"]),
        (["trainer.rank=4"], ["trainer.rank=4", "strategy=sft"]),
        (["strategy=ewc"], ["strategy=ewc", "sft, random_trajectory or format_only"]),
        (["strategy=sft", "data=qa"], ["data=qa", "data=trajectory"]),
        (["strategy=sft", "data.leakage=0.5"], ["data.leakage=0.5", "data.leakage=1"]),
        (["+model@learner=nano"], ["learner", "strategy=none", "strategy=sft"]),
        (["strategy=sft", "+model@synthesizer=nano"], ["synthesizer", "leave it out"]),
        (["benchmark.pace=100"], ["benchmark.pace=100", "tokens", "benchmark.budget_kind=seconds"]),
        (["campaign.earlier=1"], ["campaign.earlier=1", "[stateful]", "memory or shuffled"]),
        (["campaign.arms=[random]", "model=nano"], ["nano", "[random]", "model=recipe"]),
        (["campaign.arms=[random]", "ranking.fatigue=false"], ["ranking.fatigue=False", "stateful"]),
        (["campaign.arms=[memory]", "campaign.past=no.db"], ["campaign.past=no.db is no file", "memory/ARM-1.db"]),
        (["temperature=0.5"], ["temperature=0.5", "model=recipe", "model=http"]),
    ],
)
def test_what_a_campaign_would_ignore_is_refused(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(composed("+exp=research", *overrides))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["attempts=3", "temperature=1", "curriculum=pilot", "data=trajectory", "trainer=torch"],
        ["strategy=sft", "+model@learner=nano", "trainer.rank=4", "data.cap=1"],
        ["strategy=format_only", "model=nano", "temperature=0.5", "ranking.fatigue=false", "benchmark.pace=200000"],
    ],
)
def test_what_has_an_effect_passes(overrides: list[str]) -> None:
    assert read(composed("+exp=research", *overrides)).parts["campaign"]


def test_a_learner_without_a_campaign_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\+model@learner is the model that learns from research campaigns"):
        read(composed("+model@learner=nano"))
