import numpy as np
import pytest
from scipy.stats import binomtest

from looper.errors import LooperError
from looper.metrics.paired import compare, sign_flip, tango
from looper.metrics.power import detectable_effect, power


def arms(won, lost, both=0, neither=0):
    a = [1.0] * won + [0.0] * lost + [1.0] * both + [0.0] * neither
    b = [0.0] * won + [1.0] * lost + [1.0] * both + [0.0] * neither
    return {f"t{i}": x for i, x in enumerate(a)}, {f"t{i}": x for i, x in enumerate(b)}


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 0), (10, 3), (39, 41), (83, 0)])
def test_sign_flips_reduce_to_exact_mcnemar(won, lost):
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert compare(*arms(won, lost, 20, 20)).p_value == pytest.approx(expected, rel=1e-9)


def test_the_seeds_one_of_ten_against_none_is_no_evidence():
    row = compare(*arms(0, 1, 0, 9))
    assert row.p_value == 1.0
    assert row.low < 0 < row.high
    assert (row.won, row.lost, row.n) == (0, 1, 10)


def test_exact_sign_flips_of_averages_agree_with_enumeration():
    differences = [0.5, 1.0, -0.5, 0.5, 0.0, 1.0, 0.5]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    sums = signs @ np.abs(differences)
    assert sign_flip(differences) == pytest.approx(np.mean(np.abs(sums) >= sum(differences) - 1e-9))


def test_random_sign_flips_are_seeded_and_close_to_the_exact_ones():
    irrational = [np.sqrt(2) / 2 * d for d in (1, 1, 1, 1, 1, -1, 1, 1, 1)]
    p = sign_flip(irrational)
    assert p == sign_flip(irrational)
    assert p == pytest.approx(sign_flip([1, 1, 1, 1, 1, -1, 1, 1, 1]), abs=0.006)


def score_by_search(won, lost, n, delta):
    """The score statistic at a true difference, its nuisance found by maximising the likelihood on a grid."""
    down = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
    up = down + delta
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (n - won - lost) * np.log(1 - up - down)
        likelihood += (won * np.log(up) if won else 0.0) + (lost * np.log(down) if lost else 0.0)
    best = down[np.nanargmax(likelihood)]
    return (won - lost - n * delta) / np.sqrt(n * (2 * best + delta - delta**2))


@pytest.mark.parametrize(("won", "lost", "n"), [(12, 2, 100), (1, 0, 44), (7, 9, 30), (20, 1, 25)])
def test_tango_inverts_the_score_test(won, lost, n):
    low, high = tango(won, lost, n)
    assert score_by_search(won, lost, n, low) == pytest.approx(1.959964, abs=2e-3)
    assert score_by_search(won, lost, n, high) == pytest.approx(-1.959964, abs=2e-3)


def test_tango_at_the_edges():
    bound = 1.959964**2 / (100 + 1.959964**2)  # no discordant pair
    assert tango(0, 0, 100) == pytest.approx((-bound, bound), abs=1e-6)
    assert tango(9, 0, 9)[1] == pytest.approx(1.0)
    assert tango(0, 9, 9)[0] == pytest.approx(-1.0)


def test_swapping_the_arms_mirrors_the_difference():
    a, b = arms(12, 4, 9, 15)
    there, back = compare(a, b), compare(b, a)
    assert (there.estimate, there.low, there.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    assert there.p_value == back.p_value
    assert (there.won, there.lost) == (back.lost, back.won)


def test_interval_and_test_never_disagree():
    row = compare(*arms(5, 0, 20, 20))  # exact p = .0625, where the score interval alone excludes 0
    assert tango(5, 0, 45)[0] > 0
    assert row.p_value > 0.05
    assert row.low == 0.0


def test_a_task_that_one_arm_lacks_is_named():
    with pytest.raises(LooperError, match="second arm has no outcome for only-here"):
        compare({"t": 1.0, "only-here": 0.0}, {"t": 1.0})
    with pytest.raises(LooperError, match="first arm has no outcome for there"):
        compare({"t": 1.0}, {"t": 1.0, "there": 0.0})
    with pytest.raises(LooperError, match="both arms are empty"):
        compare({}, {})


def test_a_machine_failure_in_either_arm_excludes_the_pair_and_is_counted():
    row = compare({"a": 1.0, "b": None, "c": 1.0}, {"a": 0.0, "b": 1.0, "c": None})
    assert (row.n, row.excluded, row.estimate) == (1, 2, 1.0)
    with pytest.raises(LooperError, match="machine failed on all 1"):
        compare({"a": None}, {"a": 1.0})


@pytest.mark.parametrize("worlds", [1, 2])
def test_coverage_and_error_rate_by_simulation(worlds):
    rng = np.random.default_rng(5)
    covered = rejected = 0
    runs, n, effect = 150, 50, 0.1
    for run in range(2 * runs):
        gain = effect if run < runs else 0.0
        skill = rng.choice([0.1, 0.45, 0.8], size=(n, 1))
        luck = rng.random((n, worlds))
        other = np.where(rng.random((n, worlds)) < 0.6, luck, rng.random((n, worlds)))
        a, b = (other < skill + gain).mean(1), (luck < skill).mean(1)
        row = compare({str(i): float(x) for i, x in enumerate(a)}, {str(i): float(x) for i, x in enumerate(b)})
        if run < runs:
            covered += row.low <= effect <= row.high
        else:
            rejected += row.p_value < 0.05
    assert covered / runs > 0.92
    assert rejected / runs < 0.07


@pytest.mark.parametrize(("n", "discordance"), [(40, 0.3), (150, 0.11), (150, 0.0)])
def test_the_detectable_effect_is_found_four_times_in_five(n, discordance):
    effect = detectable_effect(n, discordance)
    psi = max(discordance, effect)
    rng = np.random.default_rng(1)
    m = rng.binomial(n, psi, size=4000)
    won = rng.binomial(m, (psi + effect) / (2 * psi))
    pairs, index = np.unique(np.stack([m, won], 1), axis=0, return_inverse=True)
    significant = np.array([k > 0 and binomtest(int(w), int(k)).pvalue < 0.05 for k, w in pairs])
    assert np.mean(significant[index.ravel()]) == pytest.approx(0.8, abs=0.03)


def test_what_small_and_large_comparisons_can_detect():
    assert detectable_effect(5, 0.2) is None  # the exact test needs six discordant pairs
    assert detectable_effect(40, 0.25) == pytest.approx(0.24, abs=0.03)
    assert detectable_effect(560, 0.11) == pytest.approx(0.04, abs=0.004)
    assert power(100, 0.3, 0.0) == 0.0
