"""EWC: the running importance, the pull of the penalty, and plain fine-tuning without it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from looper.errors import ConfigError, TrainingError
from looper.learning.ewc import Ewc, decayed, normalised
from looper.learning.sft import Sft
from looper.protocols import Past
from tests.learning.continual import STAGES, Bench, line, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    return line(Sft(), STAGES[:2], Bench(model_path=model, root=tmp_path_factory.mktemp("sft")))


@pytest.fixture(scope="module")
def held(model, tmp_path_factory):
    """Two stages with a pull that matters."""
    return line(Ewc(lam=100.0), STAGES[:2], Bench(model_path=model, root=tmp_path_factory.mktemp("ewc")))


def weights(skill):
    return load_file(Path(skill.adapters[-1].path) / "adapter_model.safetensors")


def fisher(lab):
    (file,) = lab.out("fisher").glob("*.safetensors")
    return load_file(file)


def pull(steps, importance):
    """sum_i F_i (w_i - w*_i)^2 from the first stage to the second."""
    (first, _), (second, _) = steps[:2]
    old, new = weights(first), weights(second)
    return sum(float((importance[name] * (new[name] - old[name]) ** 2).sum()) for name in old)


def test_an_importance_is_divided_by_its_mean_over_all_parameters():
    raw = {"a": np.array([1.0, 3.0], np.float32), "b": np.full((2, 2), 8.0, np.float32)}
    scaled, mean = normalised(raw)
    assert mean == pytest.approx(6.0)
    assert np.concatenate([v.ravel() for v in scaled.values()]).mean() == pytest.approx(1.0)
    assert scaled["a"].dtype == np.float32 and scaled["a"][1] == pytest.approx(0.5)
    for bad in (0.0, np.nan):
        with pytest.raises(TrainingError, match="the mean importance"):
            normalised({"a": np.full(3, bad, np.float32)})


def test_the_running_importance_decays():
    old, new = {"a": np.array([2.0, 0.0], np.float32)}, {"a": np.array([1.0, 1.0], np.float32)}
    assert decayed(old, new, 0.5)["a"].tolist() == [2.0, 1.0]
    with pytest.raises(TrainingError, match="other layers or rank"):
        decayed({"a": np.zeros(3, np.float32)}, new, 0.5)


def test_without_a_pull_it_is_plain_fine_tuning_bit_for_bit(model, plain, tmp_path):
    steps = line(Ewc(lam=0.0), STAGES[:2], Bench(model_path=model, root=tmp_path))
    assert [skill.digest for skill, _ in steps] == [skill.digest for skill, _ in plain]
    assert not steps[0][1].out("fisher").exists()


def test_the_pull_holds_the_adapter_near_its_last_state(plain, held):
    assert held[0][0].digest == plain[0][0].digest  # the first stage has nothing to hold on to
    assert held[1][0].digest != plain[1][0].digest and len(held[1][0].adapters) == 1
    importance = fisher(held[0][1])
    assert 0.0 < pull(held, importance) < 0.5 * pull(plain, importance)


def test_the_importance_lies_beside_the_adapter_and_runs_on(held, model, tmp_path):
    (first, lab), (second, later) = held
    assert lab.notes["fisher_mean"] > 0.0 and lab.notes["fisher_examples"] == 4
    assert {n: v.shape for n, v in fisher(lab).items()} == {n: v.shape for n, v in weights(first).items()}
    assert np.mean(np.concatenate([v.ravel() for v in fisher(lab).values()])) == pytest.approx(1.0, rel=1e-4)
    alone = later.trainer.importance(
        model, STAGES[1], Path(second.adapters[0].path), tmp_path / "raw", sampled=True, product=False, seed=0
    )
    expected = decayed(fisher(lab), normalised(load_file(alone))[0], 0.9)
    for name, values in fisher(later).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5)


def test_a_missing_importance_is_measured_again(held):
    (first, lab), (second, later) = held
    strategy, before = Ewc(lam=100.0), fisher(lab)
    shutil.rmtree(lab.out("fisher"))
    shutil.rmtree(later.out("adapter"))
    again = strategy.learn(first, STAGES[1], later)
    assert again.digest == second.digest
    assert all((fisher(lab)[name] == before[name]).all() for name in before)


def test_products_are_held_too(model, held, tmp_path):
    steps = line(Ewc(lam=100.0, product=True, sampled=False), STAGES[:2], Bench(model_path=model, root=tmp_path))
    assert steps[1][0].digest != held[1][0].digest
    assert any(values.shape == (64, 32) for values in fisher(steps[0][1]).values())  # a layer's own shape


def test_an_adapter_of_unknown_past_is_refused(held, model, tmp_path):
    lab = Bench(model_path=model, root=tmp_path)
    with pytest.raises(TrainingError, match="nothing is known of what adapter"):
        Ewc().learn(held[0][0], STAGES[1], lab)
    two = held[0][0].model_copy(update={"adapters": held[0][0].adapters * 2})
    with pytest.raises(TrainingError, match="one adapter, not 2"):
        Ewc().learn(two, STAGES[1], lab)


def test_a_stage_that_taught_nothing_is_passed_over(held, model, tmp_path):
    (first, _), (second, _) = held
    same = (Past(examples=tuple(STAGES[0]), skill=first), Past(examples=tuple(STAGES[2]), skill=first))
    later = Bench(model_path=model, root=tmp_path, past=same)
    assert Ewc(lam=100.0).learn(first, STAGES[1], later).digest == second.digest


def test_settings_out_of_range_are_named():
    for settings in ({"lam": -1.0}, {"gamma": 1.5}, {"samples": 0}):
        with pytest.raises(ConfigError, match=f"strategy.{next(iter(settings))}="):
            Ewc(**settings)
