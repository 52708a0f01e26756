"""A mixture of LoRA experts: adapters by category of task, weighed session by session by a router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from looper.errors import ConfigError, TrainingError
from looper.learning import router
from looper.learning.adapters import adapter_at
from looper.learning.adaptive_rank import ranked
from looper.learning.arrow import prototypes
from looper.learning.categories import Categories, Points, begun, clusters, extended, split_rank
from looper.learning.fitting import Fitting, facts, owned
from looper.learning.sft import Sft
from looper.protocols import Form, Lab, Trainer
from looper.records import Adapter, Example, Skill

if TYPE_CHECKING:
    from looper.records import Router


class Category(Enum):
    """What makes tasks belong to one expert."""

    cluster = "cluster"
    family = "family"


class Routing(Enum):
    """How a session's experts are weighed."""

    learned = "learned"
    arrow = "arrow"


@dataclass(frozen=True, kw_only=True)
class Mole(Fitting):
    """Trains an expert on each category's share of the examples, and a router that weighs them for each session.

    W' = W + sum_i w_i * scale * B_i A_i (after Wu et al. 2024, 2404.13628, but with one weight per expert and session).
    The experts' ranks sum to the trainer's rank, so that the mixture is as large as a single adapter. The weights come
    from the first user message and stay for the session. Later stages continue the experts. One expert is plain `sft`.
    """

    experts: int = 4
    """Most experts. Their ranks are reserved at the first stage: by family, later families take what is left."""
    category: Category = Category.cluster
    """cluster: k-means on the embeddings of the first user messages; family: the task's family."""
    least: int = 4
    """Fewest tasks of a cluster at the first stage; smaller ones join their neighbours."""
    routing: Routing = Routing.learned
    """learned: a small network on the embedding, trained to name the category; arrow: without training."""
    top_k: int = 2
    """Experts that share a session; their weights are scaled to sum to 1."""
    temperature: float = 1.0
    """Divisor of Arrow's scores before the softmax."""
    hidden: int = 32
    """Width of the learned router's hidden layer."""
    steps: int = 200
    """Training steps of the learned router, each on all tasks."""
    lr: float = 0.01
    """Learning rate of the learned router."""
    balance: float = 0.01
    """Weight of the loss that spreads sessions over the experts."""
    fresh: bool = False
    """Start every stage from the base model instead of the last mixture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("experts", "least", "top_k", "hidden", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"strategy.{name}={getattr(self, name)} is not positive; choose 1 or more")
        if self.temperature <= 0.0 or self.lr <= 0.0 or self.balance < 0.0:
            raise ConfigError(
                f"strategy.temperature={self.temperature} and lr={self.lr} have to be above 0, "
                f"balance={self.balance} not below"
            )

    def gives(self, stages: int) -> Form:
        """Experts and a router, but for a single expert."""
        return Form.mixture if self.experts > 1 else Form.single

    def suits(self, trainer: Trainer) -> None:
        """Raise TrainingError for a rank that cannot be split; how many clusters there are is known later."""
        if self.experts > 1 and self.category is Category.family:
            for rank in set(split_rank(int(getattr(trainer, "rank", 0)), self.experts)):
                ranked(trainer, rank)

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the skill with trained experts and their router in place of what it had.

        Raises NothingToLearn for too few tasks, TrainingError for a skill that is no mixture, or of another base model.
        """
        if self.experts == 1:
            single = Sft(fresh=self.fresh, warn_under=self.warn_under, refuse_under=self.refuse_under)
            return single.learn(skill, examples, lab)
        self.preflight(examples, lab)
        last = Skill() if self.fresh else skill
        owned(last, lab, "give strategy.fresh=true")
        if last.adapters and last.router is None:
            raise TrainingError("the skill's adapters are no mixture; give strategy.fresh=true, or strategy.experts=1")
        texts = queries(examples)
        points = np.asarray(lab.trainer.embeddings(lab.model_path, list(texts.values())), np.float32)
        categories = self._categories(last, points, list(texts), lab)
        adapters = self._fitted(last, examples, categories, lab)
        made = self._router(categories, adapters, texts, points, lab)
        return skill.model_copy(update={"adapters": adapters, "router": made})

    def _categories(self, last: Skill, points: Points, tasks: list[str], lab: Lab) -> Categories:
        """Return the tasks' experts; what earlier stages decided stays."""
        by_family = self.category is Category.family
        families = {episode.task: episode.family for episode in lab.episodes} if by_family else None
        if last.router is not None:
            return extended(router.load(Path(last.router.path)), points, tasks, families)
        rank = int(getattr(lab.trainer, "rank", 0))
        if not by_family:
            return clusters(points, tasks, rank=rank, experts=self.experts, least=self.least, seed=lab.seed)
        return extended(begun(points, split_rank(rank, self.experts)), points, tasks, families)

    def _fitted(
        self, last: Skill, examples: Sequence[Example], categories: Categories, lab: Lab
    ) -> tuple[Adapter, ...]:
        """Train the experts that have examples at this stage, and note what each did."""
        adapters = list(last.adapters)
        told: list[dict[str, Any]] = []
        for i in range(categories.experts):
            share = [example for example in examples if categories.tasks[example.task] == i]
            known = sum(expert == i for expert in categories.tasks.values())
            row = {"tasks": len({e.task for e in share}), "all_tasks": known, "examples": len(share)}
            told.append({**row, "rank": categories.ranks[i]})
            if not share:
                continue
            fit = ranked(lab.trainer, categories.ranks[i]).fit(
                lab.model_path,
                share,
                start=Path(adapters[i].path) if i < len(adapters) else None,
                out=lab.out(f"expert-{i}"),
                seed=lab.seed + i,  # with one start for all, Arrow's prototypes would share a subspace
            )
            adapters[i : i + 1] = [adapter_at(fit.adapter, lab.model_id)]
            told[-1] |= facts(fit)
        lab.note({"experts": told, **_together(told)})
        return tuple(adapters)

    def _router(
        self,
        categories: Categories,
        adapters: Sequence[Adapter],
        texts: Mapping[str, str],
        points: Points,
        lab: Lab,
    ) -> Router:
        """Make the router from all stages' tasks, or from the experts alone, and note how it works."""
        if self.routing is Routing.arrow:
            found = prototypes([Path(adapter.path) for adapter in adapters])
            return router.save(
                lab.out("router"), "arrow", found, categories, top_k=self.top_k, temperature=self.temperature
            )
        past = queries([example for stage in lab.past for example in stage.examples])
        more = {task: text for task, text in past.items() if task not in texts and task in categories.tasks}
        if more:
            earlier = np.asarray(lab.trainer.embeddings(lab.model_path, list(more.values())), np.float32)
            points = np.concatenate([points, earlier])
        points = categories.standardised(points)
        labels = np.array([categories.tasks[task] for task in (*texts, *more)], np.int64)
        settings = router.Settings(
            hidden=self.hidden,
            steps=self.steps,
            lr=self.lr,
            balance=self.balance,
            top_k=self.top_k,
            seed=lab.seed,
        )
        trained = router.train(points, labels, categories.experts, settings)
        weights = router.shares(trained, points, self.top_k)
        noted = {
            "tasks": len(labels),
            "accuracy": router.accuracy(points, labels, categories.experts, settings),
            "fit_accuracy": float((weights.argmax(1) == labels).mean()),
            **router.usage(weights),
        }
        lab.note({"router": noted})
        return router.save(lab.out("router"), "mlp", trained, categories, top_k=self.top_k, temperature=1.0)


def queries(examples: Sequence[Example]) -> dict[str, str]:
    """Return each task's query: the first user message of its first example."""
    found: dict[str, str] = {}
    for example in examples:
        found.setdefault(example.task, next((m.content for m in example.messages if m.role == "user"), ""))
    return found


def _together(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the experts' trainings did as if they were one: means by examples, sums of steps and seconds."""
    trained = [row for row in told if "train_loss" in row]
    total = sum(row["examples"] for row in trained)
    held = [row for row in trained if row["held_out_loss"] is not None]
    outside = sum(row["examples"] for row in held)
    return {
        "train_loss": sum(row["train_loss"] * row["examples"] for row in trained) / total,
        "held_out_loss": sum(row["held_out_loss"] * row["examples"] for row in held) / outside if held else None,
        "steps": sum(row["steps"] for row in trained),
        "seconds": sum(row["seconds"] for row in trained),
    }
