"""Posteriors against closed forms; shrinkage, shared credit, recency and claims."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from looper.errors import ConfigError
from looper.memory.ranking.posterior import effects, noise
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence
from tests.memory.ranking.rows import SIGMA, method, tried

UNHURRIED = settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
PLAIN = Ranking(sigma=SIGMA, recency=False, literature=False, scope_sd=1.0, prior_sd=2.0)
DELTAS = st.lists(st.floats(-20, 20), min_size=1, max_size=8)


def posterior_of(name: str, evidence: list[Evidence], scope: str, settings: Ranking = PLAIN) -> tuple[float, float]:
    found = effects([method(name)], evidence, scope=scope, settings=settings)[name]
    return found.mean, found.sd


@UNHURRIED
@given(DELTAS, st.integers(1, 9))
def test_one_scope_is_the_conjugate_normal_update(deltas: list[float], n: int) -> None:
    evidence = [tried(i, "m", delta, scope="", n=n) for i, delta in enumerate(deltas)]
    precision = 1 / 2.0**2 + n * len(deltas)
    mean, sd = posterior_of("m", evidence, "")
    assert mean == pytest.approx(n * sum(deltas) / precision, abs=1e-9)
    assert sd == pytest.approx(1 / math.sqrt(precision))


def test_a_chain_of_scopes_is_the_joint_normal_of_scipy() -> None:
    # (root, a, a/b) given a measurement of 3 in `a` and of -2 in `c`; the density's mode is its mean.
    evidence = [tried(0, "m", 3.0, scope="a"), tried(1, "m", -2.0, scope="c")]
    mean, sd = posterior_of("m", evidence, "a/b")
    grid = np.linspace(-15, 15, 401)
    root, a = np.meshgrid(grid, grid, indexing="ij")
    density = stats.norm.pdf(root, 0, 2) * stats.norm.pdf(a, root, 1) * stats.norm.pdf(3.0, a, 1)
    density *= stats.norm.pdf(-2.0, root, math.sqrt(2))  # c integrated out: N(root, 1) and noise 1
    density /= density.sum()
    expected = float((density * a).sum())
    variance = float((density * (a - expected) ** 2).sum()) + 1.0  # and one step from a to a/b
    assert mean == pytest.approx(expected, abs=1e-6)
    assert sd == pytest.approx(math.sqrt(variance), abs=1e-4)


def test_without_local_data_a_scope_has_its_parents_mean_and_is_less_sure() -> None:
    evidence = [tried(i, "m", 4.0, scope="a") for i in range(3)]
    parent, child = posterior_of("m", evidence, "a"), posterior_of("m", evidence, "a/b")
    assert child[0] == pytest.approx(parent[0])
    assert child[1] == pytest.approx(math.hypot(parent[1], 1.0))


def test_with_much_local_data_a_scope_has_its_own_mean() -> None:
    elsewhere = [tried(i, "m", 6.0, scope="a/c") for i in range(50)]
    here = [tried(100 + i, "m", -2.0, scope="a/b") for i in range(400)]
    mean, sd = posterior_of("m", elsewhere + here, "a/b")
    assert mean == pytest.approx(-2.0, abs=0.03)
    assert sd == pytest.approx(1 / math.sqrt(400), rel=0.01)


def test_without_the_switch_all_scopes_are_one() -> None:
    evidence = [tried(0, "m", 5.0, scope="x/y"), tried(1, "m", -5.0, scope="z")]
    pooled = replace(PLAIN, scopes=False)
    assert posterior_of("m", evidence, "x/y", pooled) == posterior_of("m", evidence, "z", pooled)
    assert posterior_of("m", evidence, "x/y")[0] > 1.0 > -1.0 > posterior_of("m", evidence, "z")[0]


def test_a_joint_experiment_shares_its_credit_until_one_is_measured_alone() -> None:
    both = [tried(0, "m k", 6.0, scope="")]
    found = effects([method("m"), method("k")], both, scope="", settings=PLAIN)
    assert found["m"].mean == pytest.approx(found["k"].mean) == pytest.approx(6.0 * 4 / 9)
    alone = [*both, *(tried(1 + i, "m", 6.0, scope="") for i in range(20))]
    resolved = effects([method("m"), method("k")], alone, scope="", settings=PLAIN)
    assert resolved["m"].mean > 5.5
    assert abs(resolved["k"].mean) < 0.5


def test_old_evidence_counts_half_after_a_half_life() -> None:
    settings = replace(PLAIN, recency=True, half_life=10.0)
    evidence = [tried(0, "m", 4.0, scope=""), tried(10, "other", 0.0, scope="")]
    assert posterior_of("m", evidence, "", settings)[0] == pytest.approx(4.0 * 0.5 / (0.25 + 0.5))
    assert posterior_of("m", evidence, "")[0] == pytest.approx(4.0 / 1.25)


def test_an_inconclusive_result_pulls_to_itself_alone() -> None:
    assert posterior_of("m", [tried(0, "m", 0.0, scope="")], "")[0] == 0.0
    assert posterior_of("m", [tried(0, "m", 0.0, scope="")], "")[1] < 2.0


def test_a_crash_says_nothing_of_the_effect() -> None:
    assert posterior_of("m", [tried(0, "m", None)], "a/b") == posterior_of("m", [], "a/b")


@UNHURRIED
@given(st.permutations([tried(i % 4, "m k" if i % 3 else "m", 0.1 * i * i - 1, scope=f"a/{i % 2}") for i in range(9)]))
def test_the_order_of_the_list_changes_not_a_digit(evidence: list[Evidence]) -> None:
    straight = sorted(evidence, key=lambda e: (e.order, e.delta or 0.0))
    settings = replace(PLAIN, recency=True)
    methods = [method("m"), method("k")]
    assert effects(methods, evidence, scope="a/0", settings=settings) == effects(
        methods, straight, scope="a/0", settings=settings
    )


def test_claims_shift_the_prior_little_and_evidence_overrules_them() -> None:
    settings = replace(PLAIN, literature=True, claim_sd=3.0, claim_cap=2.0)
    promised = method("m", effect=-50 * SIGMA)
    [start] = effects([promised], [], scope="", settings=settings).values()
    assert start.mean == pytest.approx(2.0 * (1 / 9) / (1 / 9 + 1 / 4))  # the cap, not 50
    bad = [tried(i, "m", -2.0, scope="") for i in range(5)]
    [end] = effects([promised], bad, scope="", settings=settings).values()
    assert end.mean < -1.5


@pytest.mark.parametrize(("unit", "effect", "sign"), [("percent", -40.0, 1), ("loss", 3.0, -1), ("BLEU", 0.9, 1)])
def test_of_a_claim_in_another_unit_only_the_sign_counts(unit: str, effect: float, sign: int) -> None:
    settings = replace(PLAIN, literature=True)
    means = [
        effects([method("m", effect=effect * size, unit=unit)], [], scope="", settings=settings)["m"].mean
        for size in (1.0, 100.0)
    ]
    assert means[0] == means[1]
    assert math.copysign(1, means[0]) == sign


def test_noise_is_that_of_the_nearest_measured_scope() -> None:
    evidence = [tried(0, "m", 0.0, scope="a/b", sigma=0.5), tried(1, "m", 0.0, scope="c", sigma=0.1)]
    assert noise(evidence, "a/b", 9.0) == noise(evidence, "a/z", 9.0) == 0.5
    assert noise(evidence, "d", 9.0) == pytest.approx(0.3)
    assert noise([], "a", 9.0) == 9.0


def test_effects_of_machines_with_other_noise_are_compared_in_noise() -> None:
    loud = [tried(0, "m", None, scope="loud", status="ok", sigma=1.0).model_copy(update={"delta": 3.0})]
    quiet = [tried(0, "m", None, scope="loud", status="ok", sigma=0.001).model_copy(update={"delta": 0.003})]
    assert posterior_of("m", loud, "loud") == pytest.approx(posterior_of("m", quiet, "loud"))


@pytest.mark.parametrize("field", ["sigma", "half_life", "prior_sd"])
def test_a_setting_outside_its_range_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}=0"):
        Ranking(**{field: 0.0})  # type: ignore[arg-type]
