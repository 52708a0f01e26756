"""Queries: reused after gains, until they tire; new ones from the goal and the code."""

from __future__ import annotations

from dataclasses import replace

from looper.memory.ranking.queries import QueryChoice, choose_query
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence, Exposure
from tests.memory.ranking.rows import SIGMA, shown, tried

CALM = Ranking(sigma=SIGMA, thompson=False)
GOAL = ("lower", "validation", "loss")
CODE = ("muon", "warmdown", "gelu", "rope")


def asked(query: str, order: int, scope: str = "a/b") -> Exposure:
    return shown(order, "x", scope=scope)[0].model_copy(update={"subject": query, "attempted": True})


def choice(
    evidence: list[Evidence], exposures: list[Exposure], settings: Ranking = CALM, seed: int = 0, scope: str = "a/b"
) -> QueryChoice:
    return choose_query(GOAL, evidence, exposures, scope, seed, settings, code_words=CODE)


def test_the_first_query_holds_words_of_the_goal_and_of_the_code() -> None:
    first = choice([], [])
    assert not first.reused
    words = first.query.split()
    assert set(GOAL) <= set(words) <= {*GOAL, *CODE}
    assert len(words) == 6
    assert choice([], []) == first


def test_a_query_that_led_to_a_gain_is_asked_again_and_one_that_did_not_is_not() -> None:
    good, bad = tried(0, "m", 4.0, query="mlp swiglu"), tried(1, "k", -4.0, query="longer warmup")
    found = choice([good, bad], [asked("mlp swiglu", 0), asked("longer warmup", 1)])
    assert (found.query, found.reused) == ("mlp swiglu", True)
    assert not choice([bad], [asked("longer warmup", 1)]).reused


def test_a_gain_within_the_noise_is_no_reason_to_ask_again() -> None:
    assert not choice([tried(0, "m", 1.0, query="mlp swiglu")], [asked("mlp swiglu", 0)]).reused


def test_a_query_tires_and_a_new_gain_wakes_it() -> None:
    evidence = [tried(0, "m", 4.0, query="mlp swiglu")]
    uses = [asked("mlp swiglu", at) for at in range(1, 9)]
    assert choice(evidence, uses[:1]).reused
    assert not choice(evidence, uses).reused
    assert choice(evidence, uses, replace(CALM, fatigue=False)).reused
    assert choice([*evidence, tried(9, "m", 4.0, query="mlp swiglu")], uses).reused


def test_a_query_is_fresh_in_another_scope() -> None:
    evidence = [tried(i, "m", 6.0, query="mlp swiglu") for i in range(3)]
    uses = [asked("mlp swiglu", at) for at in range(3, 12)]
    assert not choice(evidence, uses).reused
    assert choice(evidence, uses, scope="a/c").reused


def test_new_queries_take_up_words_that_were_not_asked() -> None:
    first = choice([], [])
    second = choice([], [asked(first.query, 0)])
    assert set(CODE) - set(first.query.split()) <= set(second.query.split())
