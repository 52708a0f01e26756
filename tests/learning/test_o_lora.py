"""O-LoRA: one more adapter a stage, apart from the earlier ones."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from looper.errors import ConfigError, TrainingError
from looper.learning.o_lora import OLora
from looper.learning.sft import Sft
from looper.records import Adapter, Skill
from tests.learning.continual import STAGES, Bench, line, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def apart(model, tmp_path_factory):
    return line(OLora(lam=0.5), STAGES, Bench(model_path=model, root=tmp_path_factory.mktemp("apart")))


@pytest.fixture(scope="module")
def free(model, tmp_path_factory):
    return line(OLora(lam=0.0), STAGES[:2], Bench(model_path=model, root=tmp_path_factory.mktemp("free")))


def overlap(skill):
    """sum |A_1 A_2^T| over the layers."""
    first, second = (load_file(Path(a.path) / "adapter_model.safetensors") for a in skill.adapters[:2])
    return sum(float(np.abs(first[n] @ second[n].T).sum()) for n in first if "lora_A" in n)


def test_the_skill_grows_by_one_adapter_and_keeps_the_earlier_ones(apart):
    skills = [skill for skill, _ in apart]
    assert [len(skill.adapters) for skill in skills] == [1, 2, 3]
    assert skills[2].adapters[:2] == skills[1].adapters and skills[1].adapters[:1] == skills[0].adapters
    assert apart[2][1].notes["adapter_count"] == 3


def test_the_first_stage_is_plain_and_later_ones_are_not(apart, model, tmp_path):
    plain = line(Sft(), STAGES[:2], Bench(model_path=model, root=tmp_path))
    assert apart[0][0].digest == plain[0][0].digest
    assert apart[1][0].adapters[-1].digest != plain[1][0].adapters[-1].digest


def test_the_penalty_keeps_input_directions_apart(apart, free):
    assert overlap(apart[1][0]) < 0.5 * overlap(free[1][0])


def test_every_adapter_has_a_random_start_of_its_own(free):
    first, second = (load_file(Path(a.path) / "adapter_model.safetensors") for a in free[1][0].adapters)
    for name in (name for name in first if "lora_A" in name):
        rows, others = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (first[name], second[name]))
        assert np.abs((rows * others).sum(1)).mean() < 0.5, name  # the same start would leave this near 1


def test_without_a_penalty_adapters_are_stacked(free, model, tmp_path):
    (first, _), (second, lab) = free
    fit = lab.trainer.fit(
        model, STAGES[1], start=None, out=tmp_path / "a", seed=1, under=[Path(first.adapters[0].path)]
    )
    stored = Path(second.adapters[1].path) / "adapter_model.safetensors"
    assert stored.read_bytes() == (fit.adapter / "adapter_model.safetensors").read_bytes()


def test_mistakes_are_named(model, tmp_path):
    with pytest.raises(ConfigError, match=r"strategy\.lam=-1"):
        OLora(lam=-1.0)
    other = Skill(adapters=(Adapter(path="nowhere", digest="d", base="other"),))
    with pytest.raises(TrainingError, match="belongs to other, the model is tiny"):
        OLora().learn(other, STAGES[0], Bench(model_path=model, root=tmp_path))
