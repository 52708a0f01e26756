"""A line of learning stages with a real trainer and a tiny random model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from looper.lab import LearningLab
from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import save_tokenizer, train_tokenizer
from looper.pretraining.export import save
from looper.pretraining.network import Network
from looper.protocols import Past, Trainer
from looper.records import Example, Message, Skill
from looper.training.torch_trainer import TorchTrainer

SYSTEM = Message(role="system", content="You fix bugs.")


def stage(name, count=4):
    """Examples of one stage; every stage has its own way to answer."""
    return [
        Example(
            task=f"{name}{i}",
            episode=f"e{name}{i}",
            messages=(
                SYSTEM,
                Message(role="user", content=f"Issue: {name} {i} is wrong"),
                Message(role="assistant", content=f"<read>{name * 3}/f{i}.py</read>"),
            ),
            weights=(0.0, 0.0, 1.0),
        )
        for i in range(count)
    ]


STAGES = [stage("a"), stage("b"), stage("c")]


def tiny_model(folder: Path) -> Path:
    """A random model of two layers."""
    texts = [m.content for examples in STAGES for e in examples for m in e.messages]
    save_tokenizer(train_tokenizer(texts, vocab=320), folder)
    network = Network(Shape(hidden=32, layers=2, heads=2, kv_heads=1, ff=64, vocab=320, positions=256))
    network.embed.data.mul_(10.0)
    save(network, folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A lab on a temporary folder."""

    model_path: Path
    root: Path
    trainer: Trainer = field(
        default_factory=lambda: TorchTrainer(rank=4, alpha=8, lr=1e-2, batch=1, epochs=4, held_out=0.0)
    )
    model_id: str = "tiny"
    seed: int = 0
    past: tuple[Past, ...] = ()
    notes: dict[str, object] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        return self.root / name

    def note(self, facts: Mapping[str, object]) -> None:
        LearningLab.note(self, facts)  # type: ignore[arg-type]


def line(strategy, stages, bench: Bench) -> list[tuple[Skill, Bench]]:
    """Learn stage after stage; the skill after each, and the lab it was learned in."""
    skill, past, steps = Skill(), (), []
    for i, examples in enumerate(stages):
        lab = Bench(**{**vars(bench), "root": bench.root / str(i), "past": past, "notes": {}})
        skill = strategy.learn(skill, examples, lab)
        past = (*past, Past(examples=tuple(examples), skill=skill))
        steps.append((skill, lab))
    return steps
