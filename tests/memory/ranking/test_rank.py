"""The ranking: each switch changes what it is for; a score is its parts' product; one seed gives one list."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from looper.errors import ConfigError
from looper.memory.ranking.fatigue import unheeded
from looper.memory.ranking.posterior import Normal
from looper.memory.ranking.rank import Ranked, rank, shuffled
from looper.memory.ranking.risk import crash_risks, relative_costs
from looper.memory.ranking.score import value_at, values_of
from looper.memory.ranking.settings import Cost, Ranking
from looper.memory.rows import Evidence, Exposure, Item, Method
from tests.memory.ranking.rows import SIGMA, method, shown, tried

UNHURRIED = settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
CALM = Ranking(sigma=SIGMA, thompson=False)
PAIR = [method("m"), method("k")]


def ranked(
    evidence: list[Evidence],
    settings: Ranking = CALM,
    *,
    methods: list[Method] | None = None,
    exposures: list[Exposure] | None = None,
    scope: str = "a/b",
    seed: int = 1,
    since: int = 0,
    relevance: dict[str, float] | None = None,
    present: tuple[str, ...] = (),
) -> list[Ranked]:
    return rank(
        methods or PAIR,
        evidence,
        exposures or [],
        scope=scope,
        seed=seed,
        settings=settings,
        since=since,
        relevance=relevance,
        present=present,
    )


def order(found: list[Ranked]) -> str:
    return " ".join(one.method for one in found)


def test_scopes_tell_a_method_that_helps_here_from_one_that_helps_elsewhere() -> None:
    evidence = [tried(i, "m", 4.0, scope="x/far") for i in range(4)]
    evidence += [tried(4 + i, "m", -3.0) for i in range(3)] + [tried(7 + i, "k", 1.0) for i in range(3)]
    assert order(ranked(evidence)) == "k m"
    assert order(ranked(evidence, scope="x/far")) == "m k"
    assert order(ranked(evidence, replace(CALM, scopes=False))) == order(
        ranked(evidence, replace(CALM, scopes=False), scope="x/far")
    )


def test_recency_lets_new_evidence_overrule_old() -> None:
    evidence = [tried(i, "m", 4.0) for i in range(6)] + [tried(200 + i, "m", -3.0) for i in range(4)]
    evidence += [tried(204 + i, "k", 0.5) for i in range(4)]
    assert order(ranked(evidence)) == "k m"
    assert order(ranked(evidence, replace(CALM, recency=False))) == "m k"


def test_crash_risk_pushes_down_what_mostly_crashes() -> None:
    evidence = [tried(0, "m", 3.0), tried(1, "k", 2.5)] + [tried(2 + i, "m", None) for i in range(6)]
    evidence += [tried(8 + i, "k", 2.5) for i in range(1)]
    assert order(ranked(evidence)) == "k m"
    assert order(ranked(evidence, replace(CALM, crash=False))) == "m k"


def test_fatigue_lets_others_come_forward() -> None:
    evidence = [tried(0, "m", 3.0), tried(1, "k", 2.5)]
    exposures = [x for at in range(2, 8) for x in shown(at, "m")]
    assert order(ranked(evidence)) == "m k"
    assert order(ranked(evidence, exposures=exposures)) == "k m"
    assert order(ranked(evidence, replace(CALM, fatigue=False), exposures=exposures)) == "m k"


def test_literature_orders_methods_that_were_never_run() -> None:
    methods = [method("k", effect=0.02), method("m", effect=-0.02)]
    assert order(ranked([], methods=methods)) == "m k"
    off = ranked([], replace(CALM, literature=False), methods=methods)
    assert off[0].score == off[1].score


def test_cost_divides_by_what_a_run_takes() -> None:
    evidence = [tried(0, "m", 3.0, wall=100.0), tried(1, "k", 2.8, wall=10.0), tried(2, "x", 0.0, wall=10.0)]
    assert order(ranked(evidence)) == "k m"
    assert order(ranked(evidence, replace(CALM, cost=Cost.FREE))) == "m k"
    assert order(ranked(evidence, replace(CALM, cost=Cost.DOLLARS))) == "m k"
    assert relative_costs(["m"], evidence, settings=CALM)["m"] == pytest.approx((2 + 10) / 3)


def test_thompson_explores_by_the_seed_and_greedy_does_not() -> None:
    evidence = [tried(0, "m", 1.0), tried(1, "k", 0.8)]
    bold = replace(CALM, thompson=True, boldness=1.0)
    assert len({order(ranked(evidence, bold, seed=seed)) for seed in range(30)}) == 2
    assert len({order(ranked(evidence, seed=seed)) for seed in range(30)}) == 1


def test_draws_follow_the_posterior_and_know_nothing_of_neighbours() -> None:
    bold = replace(CALM, thompson=True, boldness=1.0)
    evidence = [tried(i, "m", 2.0) for i in range(3)]
    first = ranked(evidence, bold)[0].parts
    draws = [{one.method: one.parts["draw"] for one in ranked(evidence, bold, seed=seed)}["m"] for seed in range(400)]
    parts = {one.method: one.parts for one in ranked(evidence, bold)}["m"]
    assert stats.kstest(draws, stats.norm(parts["effect"], parts["effect_sd"]).cdf).pvalue > 0.01
    alone = ranked(evidence, bold, methods=[method("m")])[0].parts
    assert alone == parts
    assert set(alone) == set(first)


def test_the_same_arguments_give_the_same_list_in_whatever_order_they_come() -> None:
    evidence = [
        tried(i, ("m", "k", "m k")[i % 3], float(i % 5) - 2, scope=f"a/{i % 2}", wall=1.0 + i) for i in range(20)
    ]
    settings = Ranking(sigma=SIGMA)
    once = ranked(evidence, settings)
    for seed in range(5):
        mixed = list(evidence)
        random.Random(seed).shuffle(mixed)
        assert ranked(mixed, settings, methods=PAIR[::-1]) == once


def test_relevance_breaks_in_as_a_factor() -> None:
    evidence = [tried(0, "m", 1.2), tried(1, "k", 1.0)]
    assert order(ranked(evidence)) == "m k"
    found = ranked(evidence, relevance={"k": 7.0})
    assert order(found) == "k m"
    assert [one.parts["relevance"] for one in found] == [2.0, 1.0]
    assert order(ranked(evidence, replace(CALM, relevance=0.0), relevance={"k": 7.0})) == "m k"


def test_the_score_is_the_product_of_its_parts_and_an_item_keeps_them() -> None:
    evidence = [tried(0, "m", 2.0, wall=3.0), tried(1, "k", 1.0, wall=1.0), tried(2, "m", None)]
    for one in ranked(evidence, Ranking(sigma=SIGMA), exposures=shown(3, "k"), relevance={"m": 1.0}):
        p = one.parts
        product = p["p"] * p["gain"] / p["cost"] * (1 - p["crash_risk"]) * p["fatigue"] * p["relevance"]
        assert one.score == pytest.approx(product)
        assert one.item() == Item(rank=one.rank, method=one.method, score=one.score, parts=p)


def test_present_methods_are_left_out_and_what_clashes_is_said() -> None:
    methods = [
        method("m"),
        method("k", contraindications=("m", "o", "small vocabularies"), couples_with=("z",)),
        method("o"),
    ]
    found = {one.method: one.notes for one in ranked([], methods=methods, present=("m",))}
    assert set(found) == {"k", "o"}
    assert found["k"] == (
        "contraindicated: the code has m",
        "contraindication: small vocabularies",
        "goes with z, which the code lacks",
    )
    assert ranked([], methods=methods, present=("m", "k", "o")) == []


@UNHURRIED
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.1, 5))
def test_a_worse_effect_never_has_the_better_value(one: float, other: float, sd: float) -> None:
    low, high = sorted((one, other))
    (p_low, gain_low), (p_high, gain_high) = (value_at(np.array(x), np.array(sd), 2.0) for x in (low, high))
    assert 0.0 <= p_low * gain_low <= p_high * gain_high


def test_the_value_is_the_expectation_it_claims_to_be() -> None:
    normal, settings = Normal(0.7, 1.3), replace(CALM, gate=2.0)
    value = values_of({"m": normal}, 0, settings)["m"]
    x = np.random.default_rng(0).normal(0.7, np.hypot(1.3, 1.0), 400_000)
    assert value.p == pytest.approx((x > 2.0).mean(), abs=0.005)
    assert value.gain == pytest.approx(np.maximum(x, 0.0).mean(), abs=0.01)


def test_crash_risk_is_the_beta_posterior() -> None:
    settings = replace(CALM, recency=False, crash_prior=0.25, crash_strength=4.0)
    evidence = [tried(0, "m", None), tried(1, "m", None), tried(2, "m", 1.0), tried(3, "m", 0.0, status="timeout")]
    assert crash_risks(["m"], evidence, scope="a/b", settings=settings)["m"] == pytest.approx(
        stats.beta(1 + 3, 3 + 1).mean()
    )
    far = crash_risks(["m"], evidence, scope="q", settings=settings)["m"]
    assert 0.25 < far < 0.5


def test_fatigue_counts_what_was_passed_over_and_news_ends_it() -> None:
    def count(exposures: list[Exposure], evidence: list[Evidence], **more: int) -> int:
        return unheeded(["m"], exposures, evidence, scope="a/b", **more)["m"]

    twice = shown(3, "m k") + shown(4, "k m")
    assert count(twice, []) == 2
    assert count(twice, [tried(3, "m", 0.0, scope="far")]) == 1
    assert count(twice, [tried(4, "k", 0.0)]) == 2
    assert count(twice, [], since=5) == 0
    assert count(shown(3, "m", scope="a"), []) == 0
    assert count(shown(3, "m k", attempted="k"), []) == 1, "turned down for the second"
    assert count(shown(3, "k m", attempted="k"), []) == 0, "below what was taken: nothing was said of it"
    assert count(shown(3, "m", attempted="m"), []) == 0


def test_who_asks_twice_and_takes_from_the_second_list_has_not_passed_over_the_first() -> None:
    def count(*lists: str, attempted: str = "", order: int = 3) -> dict[str, int]:
        exposures = [
            x.model_copy(update={"retrieval": f"r{at}"})
            for at, names in enumerate(lists)
            for x in shown(order, names, attempted=attempted if at == len(lists) - 1 else "")
        ]
        return unheeded("abcdef", exposures, [], scope="a/b")

    once = count("a b c d e f", attempted="b")
    assert once == {"a": 1, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0}
    assert count("a b c d e f", "a b c d e f", attempted="b") == once
    assert set(count("a b c d e f", "f e d c b a").values()) == {2}, "nothing was taken from either"


def test_a_price_below_zero_in_an_old_file_does_no_harm() -> None:
    evidence = [tried(0, "m", 1.0, wall=1.0), tried(1, "k", 1.0, wall=-2.0), tried(2, "m", 1.0, wall=1.0)]
    assert relative_costs(["m", "k"], evidence, settings=CALM) == {"m": 1.0, "k": 1.0}
    assert len(ranked(evidence)) == 2


@UNHURRIED
@given(st.integers(2, 12), st.integers(0, 99))
def test_the_placebo_deals_the_same_evidence_to_other_methods(count: int, seed: int) -> None:
    methods = [method(f"m{i}", effect=-float(i)) for i in range(count)]
    evidence = [tried(i, f"m{i % count}", float(i)) for i in range(2 * count)]
    placebo, dealt = shuffled(methods, evidence, seed=seed)
    assert sorted(e.delta or 0.0 for e in dealt) == sorted(e.delta or 0.0 for e in evidence)
    assert all(one.methods != other.methods for one, other in zip(evidence, dealt, strict=True))
    by_method = {m.id: m.claims for m in methods}
    moved = {e.methods[0]: d.methods[0] for e, d in zip(evidence, dealt, strict=True)}
    assert {m.id: m.claims for m in placebo} == {moved[name]: claims for name, claims in by_method.items()}
    assert shuffled(methods, evidence, seed=seed) == (placebo, dealt)


def test_a_boldness_that_is_no_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"boldness=1\.5"):
        Ranking(boldness=1.5)
