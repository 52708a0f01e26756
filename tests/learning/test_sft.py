"""Strategies with a real trainer and a tiny random model."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from looper.errors import ConfigError, StoreError, TrainingError
from looper.lab import LearningLab
from looper.learning.adapters import adapter_at
from looper.learning.none import NoLearning
from looper.learning.sft import Sft
from looper.models.nano.model import Nano
from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import save_tokenizer, train_tokenizer
from looper.pretraining.export import save
from looper.pretraining.network import Network
from looper.protocols import Lab, Trainer
from looper.records import Adapter, Conversation, Example, Message, Skill
from looper.training.torch_trainer import TorchTrainer


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A lab on a temporary folder."""

    trainer: Trainer
    model_path: Path
    model_id: str
    seed: int
    root: Path

    notes: dict[str, object] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        return self.root / name

    def note(self, facts: Mapping[str, object]) -> None:
        LearningLab.note(self, facts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def examples():
    system, weights = Message(role="system", content="You fix bugs."), (0.0, 0.0, 1.0)
    replies = [f"<read>main/f{i}.py</read>" for i in range(6)]
    return [
        Example(
            task=f"t{i}",
            episode=f"e{i}",
            messages=(system, Message(role="user", content=f"Issue: {i}"), Message(role="assistant", content=reply)),
            weights=weights,
        )
        for i, reply in enumerate(replies)
    ]


@pytest.fixture
def lab(tmp_path, examples) -> Lab:
    folder = tmp_path / "model"
    save_tokenizer(train_tokenizer((m.content for e in examples for m in e.messages), vocab=320), folder)
    network = Network(Shape(hidden=32, layers=2, heads=2, kv_heads=1, ff=64, vocab=320, positions=256))
    network.embed.data.mul_(10.0)
    save(network, folder)
    base = Nano(path=str(folder)).id
    trainer = TorchTrainer(lr=1e-2, batch=2, epochs=2, held_out=0.0)
    return Bench(trainer=trainer, model_path=folder, model_id=base, seed=0, root=tmp_path / "first")


def loss(lab, examples, skill=None):
    adapters = [Path(skill.adapters[-1].path)] if skill else []
    found = lab.trainer.losses(lab.model_path, examples, adapters)
    return sum(found) / len(found)


def test_sft_goes_on_from_the_last_adapter_and_starts_anew_if_fresh(lab, examples, tmp_path):
    first = Sft().learn(Skill(), examples, lab)
    assert loss(lab, examples, first) < loss(lab, examples)
    assert first.adapters[0].base == lab.model_id
    assert Sft().learn(Skill(), examples, lab) == first  # the finished adapter is found again
    later = Bench(**{**vars(lab), "root": tmp_path / "second"})
    second = Sft().learn(first, examples, later)
    assert len(second.adapters) == 1 and second.digest != first.digest
    assert loss(lab, examples, second) < loss(lab, examples, first)
    anew = Sft(fresh=True).learn(first, examples, Bench(**{**vars(lab), "root": tmp_path / "anew"}))
    assert anew.digest == first.digest  # a digest says what the adapter does, not where it lies


def test_the_bundled_models_engine_runs_the_adapter(lab, examples):
    skill = Sft().learn(Skill(), examples, lab)
    model = Nano(path=str(lab.model_path))
    asked = [Conversation(id="a", messages=examples[0].messages[:2], max_tokens=4)]
    assert model.with_skill(skill).id == f"{lab.model_id}+{skill.adapters[0].digest}"
    assert model.with_skill(skill).reply(asked)[0].completion_tokens > 0


def test_too_few_tasks_are_a_warning_then_an_error(lab, examples, caplog):
    with caplog.at_level(logging.WARNING, logger="looper.learning"):
        Sft().learn(Skill(), examples, lab)
    assert "6 distinct tasks to learn from, fewer than strategy.warn_under=30" in caplog.text
    assert Sft(warn_under=6).warning(examples) == ""
    with pytest.raises(TrainingError, match=r"6 tasks with usable examples, strategy.refuse_under=7"):
        Sft(refuse_under=7).learn(Skill(), examples, lab)
    with pytest.raises(TrainingError, match="0 tasks"):
        Sft().learn(Skill(), [], lab)
    with pytest.raises(ConfigError, match="refuse_under=0"):
        Sft(refuse_under=0)


def test_an_adapter_of_another_base_is_refused(lab, examples):
    other = Skill(adapters=(Adapter(path="nowhere", digest="d", base="other-model"),))
    with pytest.raises(TrainingError, match="belongs to other-model"):
        Sft().learn(other, examples, lab)


def test_no_learning_returns_the_skill(lab, examples):
    skill = Skill(playbook="read first")
    assert NoLearning().learn(skill, examples, lab) is skill


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(StoreError, match="holds no adapter"):
        adapter_at(tmp_path, "base")
    for name, text in (("adapter_model.safetensors", ""), ("adapter_config.json", "{")):
        (tmp_path / name).write_text(text)
    with pytest.raises(StoreError, match=r"adapter_config\.json is unreadable"):
        adapter_at(tmp_path, "base")
