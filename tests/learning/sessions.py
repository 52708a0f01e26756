"""Hand-made judged sessions, and a lab that answers roll-outs from a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from looper.lab import LearningLab
from looper.learning.data.trajectory import to_example
from looper.models.nano.model import Nano
from looper.models.nano.shape import Shape
from looper.models.nano.tokenizer import save_tokenizer, train_tokenizer
from looper.pretraining.export import save
from looper.pretraining.network import Network
from looper.protocols import Past, Trainer
from looper.records import Episode, Example, Exit, Message, Skill, Step, Trajectory, Verdict
from looper.training.torch_trainer import TorchTrainer


def diff(path, old="a", new="b"):
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1,2 +1,2 @@\n x\n-{old}\n+{new}\n"


def edit(path, old="a", new="b"):
    return f'<edit path="{path}">\n{old}\n=======\n{new}\n</edit>'


def session(task, resolved=True, attempt=0, tree="live", turns=None, patch=None, **changes):
    """A session of a task; the default searches, reads, edits a file of its own and is done."""
    path = f"{tree}/{task}.py"
    if turns is None:
        turns = [(f'<bash>git grep -n "def {task}"</bash>', True), (f"<read>{path}</read>", True), (edit(path), True)]
        turns.append(("<done/>", True))
    kinds = ("bash", "read", "edit", "write", "done")
    steps = tuple(
        Step(
            reply=reply,
            action=next((kind for kind in kinds if reply.startswith(f"<{kind}")), "format"),
            observation=f"seen {i}" if ok else changes.get("error_seen", "Error: no such file: x"),
            ok=ok,
            pruned=changes.get("pruned", False),
        )
        for i, (reply, ok) in enumerate(turns)
    )
    messages = [
        Message(role="system", content=changes.get("system", "You fix bugs.")),
        Message(role="user", content=f"Issue: {task}"),
    ]
    for step in steps:
        messages += [
            Message(role="assistant", content=step.reply),
            Message(role="user", content=step.observation or "-"),
        ]
    digest = changes.get("digest", f"{task}-{attempt}-{resolved}")
    trajectory = Trajectory(
        digest=digest,
        task=task,
        attempt=attempt,
        messages=tuple(messages),
        steps=steps,
        patch=diff(path) if patch is None else patch,
        exit=changes.get("exit", Exit.DONE),
    )
    verdict = Verdict(resolved=resolved, error=changes.get("error", ""))
    return Episode(digest=digest, task=task, family="f", pair=task, trajectory=trajectory, verdict=verdict)


def made_from(episodes):
    """The plain data option's examples: resolved sessions."""
    return [to_example(episode) for episode in episodes if episode.resolved]


@dataclass(kw_only=True)
class Bench:
    """A lab on a temporary folder."""

    root: Path
    trainer: Trainer | None = None
    model_path: Path | None = None
    model_id: str = "tiny"
    seed: int = 0
    episodes: Sequence[Episode] = ()
    past: Sequence[Past] = ()
    waves: list[Sequence[Episode]] = field(default_factory=list)
    """What the next roll-outs give."""
    asked: list[tuple[str, int, float, str]] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    """The roll-outs: name, attempts, temperature, digest of the skill."""
    notes: dict[str, object] = field(default_factory=dict)

    def out(self, name: str) -> Path:
        return self.root / name

    def note(self, facts: Mapping[str, object]) -> None:
        LearningLab.note(self, facts)  # type: ignore[arg-type]

    def rollout(
        self, skill: Skill, *, attempts: int, temperature: float, name: str, tasks: int = 0
    ) -> Sequence[Episode]:
        self.asked.append((name, attempts, temperature, skill.digest))
        self.drawn.append(tasks)
        return self.waves.pop(0)

    demonstrated: bool = False
    """Whether the examples that a strategy is given are reference solutions."""

    def sessions(self, episodes: Sequence[Episode]) -> Sequence[Example]:
        return made_from(episodes)


def tiny_model(folder, episodes):
    """A random model of two layers whose tokenizer knows the sessions."""
    texts = [m.content for episode in episodes for m in episode.trajectory.messages]
    save_tokenizer(train_tokenizer(iter(texts), vocab=320), folder)
    network = Network(Shape(hidden=32, layers=2, heads=2, kv_heads=1, ff=64, vocab=320, positions=512))
    network.embed.data.mul_(10.0)
    save(network, folder)
    return folder, Nano(path=str(folder)).id


def bench(root, model, **changes):
    """A lab with a real trainer on a tiny model."""
    folder, name = model
    trainer = TorchTrainer(lr=3e-3, batch=4, epochs=1, held_out=0.0)
    return Bench(root=root, trainer=trainer, model_path=folder, model_id=name, **changes)
