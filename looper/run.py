"""One run: probe, work, consolidate, probe; every finished piece is kept, so a killed run goes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from looper.agents.loop import Agent
from looper.errors import ConfigError, ModelError, TrainingError
from looper.metrics.leakage import measure
from looper.metrics.outcomes import TRAIN, Outcome
from looper.metrics.summary import ADAPTED, BASE, PLACEBO, summarise
from looper.protocols import (
    Benchmark,
    Curriculum,
    Data,
    Memory,
    Model,
    Progress,
    Stage,
    Strategy,
    Tracker,
    Trainer,
    Workspace,
)
from looper.records import Episode, Example, Skill, Task, digest_of
from looper.rollout import Wave, roll
from looper.session import Attempt, Sessions
from looper.store import Store


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The built components of a run."""

    agent: Agent
    benchmark: Benchmark
    curriculum: Curriculum
    model: Model
    memory: Memory
    data: Data
    strategy: Strategy
    trainer: Trainer
    workspace: Workspace


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plain settings of a run."""

    seed: int
    attempts: int
    temperature: float
    placebo: bool | None
    parallel: int
    identity: str
    """Digest of what decides learning besides the examples: strategy and trainer."""


@dataclass(frozen=True, kw_only=True)
class LearningLab:
    """What a strategy works with; its folders are content-addressed, so that finished training is reused."""

    trainer: Trainer
    weights: Path | None
    model_id: str
    seed: int
    root: Path

    @property
    def model_path(self) -> Path:
        """Folder of the base model's weights. Raises ModelError for a model that cannot be trained here."""
        if self.weights is None:
            raise ModelError(f"{self.model_id} cannot be trained here: choose strategy=none, or a model with weights")
        return self.weights

    def out(self, name: str) -> Path:
        """Return the folder of one artefact."""
        return self.root / name


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A judged session with its place in the run."""

    arm: str
    stage: int
    episode: Episode


@dataclass(kw_only=True)
class Run:
    """Carries out a run."""

    parts: Parts
    plan: Plan
    store: Store
    progress: Progress
    tracker: Tracker
    outcomes: list[Outcome] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    learning: dict[str, Any] = field(default_factory=dict)

    def execute(self) -> dict[str, Any]:
        """Run everything that is not yet done and return the metrics."""
        parts, seed = self.parts, self.plan.seed
        tasks = parts.benchmark.load(seed)
        worlds = sorted({t.world for t in tasks} - {""}) or [""]
        stages = {w: self._stages(tasks, w) for w in worlds}
        leaks = {t.id: measure(t.issue, t.gold).score if t.gold else None for t in tasks}
        skills = dict.fromkeys(worlds, Skill())
        self._probe(BASE, 0, stages, skills, leaks)
        if not any(stage.train for part in stages.values() for stage in part):
            return summarise(self.outcomes, primary=tasks[0].family, learning=self.learning)
        own = self._learn(ADAPTED, stages, stages, skills, leaks, {})
        if own and self._wants_placebo():
            self._learn(PLACEBO, stages, self._placebo_stages(stages), skills, leaks, own)
        return summarise(self.outcomes, primary=tasks[0].family, learning=self.learning)

    def _wants_placebo(self) -> bool:
        """Decide on the placebo arm; unless told, it is run where the benchmark has tasks for it."""
        if self.plan.placebo is None:
            return bool(self.parts.benchmark.placebo(self.plan.seed))
        return self.plan.placebo

    def _stages(self, tasks: Iterable[Task], world: str) -> Sequence[Stage]:
        return self.parts.curriculum.stages([t for t in tasks if t.world in ("", world)], self.plan.seed)

    def _placebo_stages(self, own: dict[str, Sequence[Stage]]) -> dict[str, Sequence[Stage]]:
        tasks = self.parts.benchmark.placebo(self.plan.seed)
        if not tasks:
            raise ConfigError("placebo=true, but the benchmark has no tasks for it: give placebo=false")
        worlds = sorted({t.world for t in tasks} - {""}) or [""]
        return {w: self._stages(tasks, w if w in worlds else worlds[0]) for w in own}

    def _learn(
        self,
        arm: str,
        probed: dict[str, Sequence[Stage]],
        worked: dict[str, Sequence[Stage]],
        skills: dict[str, Skill],
        leaks: dict[str, float | None],
        limits: dict[tuple[str, int], int],
    ) -> dict[tuple[str, int], int]:
        """Work through the stages and learn after each; return the number of examples used.

        `limits` caps the examples of a world and stage (a placebo learns from no more than the real arm).
        """
        used: dict[tuple[str, int], int] = {}
        for i in range(max(len(s) for s in worked.values())):
            self._work(arm, i + 1, {w: s[i] for w, s in worked.items()}, skills, leaks)
            before = dict(skills)
            skills = {}
            for world, skill in before.items():
                limit = limits.get((world, i + 1))
                skills[world], used[world, i + 1] = self._consolidate(arm, world, i + 1, skill, limit)
            if skills == before:
                return {}
            self._probe(arm, i + 1, probed, skills, leaks)
        return used

    def _work(
        self, arm: str, stage: int, stages: dict[str, Stage], skills: dict[str, Skill], leaks: dict[str, float | None]
    ) -> None:
        """Let the agent work on a stage's train tasks."""
        self._latest: dict[str, list[Episode]] = {w: [] for w in stages}
        for skill, worlds in _by_skill(skills):
            tasks = list({t.id: t for w in worlds for t in stages[w].train}.values())
            wave = Wave(
                tasks=tasks, attempts=self.plan.attempts, temperature=self.plan.temperature, seed=self.plan.seed
            )
            episodes = self._roll(f"work ({arm})", wave, skill)
            for world in worlds:
                ids = {t.id for t in stages[world].train}
                self._latest[world] += [e for e in episodes if e.task in ids]
            if arm == ADAPTED:
                for episode in episodes:
                    self.parts.memory.record(episode)
                    self._note(TRAIN, stage - 1, stage, episode, leaks)

    def _consolidate(self, arm: str, world: str, stage: int, skill: Skill, limit: int | None) -> tuple[Skill, int]:
        """Turn a world's latest episodes into examples, and these into skill."""
        examples: Sequence[Example] = self.parts.data.examples(self._latest[world], self.plan.seed)
        if limit is not None:
            examples = _sample(examples, limit, self.plan.seed)
        model = self.parts.model
        root = digest_of([model.id, skill.digest, self.plan.identity, self.plan.seed, [digest_of(e) for e in examples]])
        lab = LearningLab(
            trainer=self.parts.trainer,
            weights=model.weights,
            model_id=model.id,
            seed=self.plan.seed,
            root=self.store.folder("adapters", root),
        )
        try:
            learned = self.parts.strategy.learn(skill, examples, lab)
        except TrainingError as error:
            raise TrainingError(f"{arm}, stage {stage}{f', world {world}' if world else ''}: {error}") from error
        facts = {"examples": len(examples), "tasks": len({e.task for e in examples}), "skill": learned.digest}
        self.learning.setdefault(arm, []).append({"world": world, "stage": stage, **facts})
        self.tracker.event("consolidated", {"arm": arm, "world": world, "stage": stage, **facts})
        return learned, len(examples)

    def _probe(
        self,
        arm: str,
        stage: int,
        stages: dict[str, Sequence[Stage]],
        skills: dict[str, Skill],
        leaks: dict[str, float | None],
    ) -> None:
        """Try the held-out tasks of every stage with the skills as they are."""
        for skill, worlds in _by_skill(skills):
            place: dict[str, int] = {}
            tasks: dict[str, Task] = {}
            for world in worlds:
                for on, part in enumerate(stages[world], 1):
                    for task in part.held_out:
                        tasks.setdefault(task.id, task)
                        place.setdefault(task.id, on)
            for episode in self._roll(f"probe ({arm})", Wave(tasks=list(tasks.values())), skill):
                self.probes.append(Probe(arm=arm, stage=stage, episode=episode))
                self._note(arm, stage, place[episode.task], episode, leaks)

    def _note(self, arm: str, stage: int, on: int, episode: Episode, leaks: dict[str, float | None]) -> None:
        leak = leaks.get(episode.task)
        self.outcomes.append(Outcome.of(episode, arm=arm, stage=stage, on=on, leakage=leak))

    def _roll(self, name: str, wave: Wave, skill: Skill) -> list[Episode]:
        parts = self.parts
        sessions = Sessions(
            agent=parts.agent,
            benchmark=parts.benchmark,
            workspace=parts.workspace,
            store=self.store,
            model=parts.model.with_skill(skill),
            skill=skill,
        )
        attempts = wave.plan(parts.memory)
        self.progress.phase(name, len(attempts))

        def observe(attempt: Attempt, episodes: list[Episode], fresh: bool) -> None:
            self.progress.done(episodes[0])
            if fresh:
                first = episodes[0]
                self.tracker.event(
                    "session",
                    {
                        "phase": name,
                        "digest": first.trajectory.digest,
                        "task": first.task,
                        "exit": first.trajectory.exit,
                        "steps": len(first.trajectory.steps),
                        "resolved": {e.task: e.resolved for e in episodes},
                        "seconds": round(first.trajectory.seconds, 3),
                    },
                )

        return roll(sessions, attempts, parallel=self.plan.parallel, observe=observe)


def _by_skill(skills: dict[str, Skill]) -> list[tuple[Skill, list[str]]]:
    """Group worlds that share a skill, so that their common sessions meet in one wave."""
    groups: dict[str, tuple[Skill, list[str]]] = {}
    for world, skill in skills.items():
        groups.setdefault(skill.digest, (skill, []))[1].append(world)
    return list(groups.values())


def _sample(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """Return at most `limit` examples, drawn evenly over tasks, in their order."""
    if len(examples) <= limit:
        return list(examples)
    kept = sorted(Random(f"placebo/{seed}").sample(range(len(examples)), limit))
    return [examples[i] for i in kept]
