"""One run: probe, work, consolidate, probe; every finished piece is kept, so a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from looper.agents.loop import Agent
from looper.answers import Kept
from looper.benchmarks.curricula import dealt
from looper.errors import ConfigError, ModelError, NothingToLearn, TrainingError
from looper.guards import Work, answering, fitting_together, split_alike
from looper.lab import LearningLab, drift, matched
from looper.leakage import measure
from looper.learning.data.trajectory import TrajectoryData
from looper.metrics.outcomes import TRAIN, Outcome
from looper.metrics.summary import ADAPTED, BASE, PLACEBO, summarise
from looper.models.supervised import Supervised
from looper.protocols import (
    Benchmark,
    Curriculum,
    Data,
    Knowledge,
    Materials,
    Memory,
    Model,
    Past,
    Progress,
    Resident,
    Stage,
    Strategy,
    Tracker,
    Trainer,
    Workspace,
)
from looper.records import Episode, Example, Skill, Task, digest_of
from looper.rollout import Wave, roll, some
from looper.session import Attempt, Sessions
from looper.store import Store


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The built components of a run."""

    agent: Agent
    benchmark: Benchmark
    curriculum: Curriculum
    model: Model
    knowledge: Knowledge
    data: Data
    strategy: Strategy
    trainer: Trainer
    workspace: Workspace
    writer: Model | None = None
    """Model that writes synthetic examples."""
    supervisor: Model | None = None
    """Model that judges every step of the sessions that are learned from; probes are never supervised."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plain settings of a run."""

    seed: int
    attempts: int
    temperature: float
    parallel: int
    learning: str
    """Digest of what decides learning besides the sessions: data option, strategy and trainer."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A judged session with its place in the run."""

    arm: str
    stage: int
    """Stages learned before the session."""
    on: int
    """Stage that the task belongs to, from 1; 0 for tasks of families that are only probed."""
    episode: Episode


@dataclass(kw_only=True)
class Arm:
    """One line of experience: what is worked on in each world, and what came of it."""

    name: str
    work: dict[str, Sequence[Stage]]
    skills: dict[str, Skill]
    memories: dict[str, Memory]
    changed: bool = False
    """Whether anything was learned so far."""
    latest: dict[str, list[Episode]] = field(default_factory=dict)
    """The last stage's train episodes by world."""
    past: dict[str, list[Past]] = field(default_factory=dict)
    """The stages learned from, by world, oldest first."""

    def groups(self) -> Iterator[tuple[Skill, Memory, list[str]]]:
        """Group worlds that share skill and memory, so that their common sessions meet in one wave."""
        found: dict[tuple[str, int], list[str]] = {}
        for world, skill in self.skills.items():
            found.setdefault((skill.digest, id(self.memories[world])), []).append(world)
        for worlds in found.values():
            yield self.skills[worlds[0]], self.memories[worlds[0]], worlds


@dataclass(kw_only=True)
class Run:
    """Carries out a run."""

    parts: Parts
    plan: Plan
    store: Store
    folder: Path
    progress: Progress
    tracker: Tracker
    entries: list[Entry] = field(default_factory=list)
    learning: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    probed: dict[str, Sequence[Stage]] = field(default_factory=dict)
    """Stages by world: whose held-out tasks are probed."""
    _model: tuple[str, Model] | None = None

    def execute(self, tasks: Sequence[Task], placebo: Sequence[Task] = ()) -> dict[str, Any]:
        """Run everything that is not yet done and return the metrics; a placebo arm works on `placebo`, if any."""
        arms = [self._arm(name, work) for name, work in self.check(tasks, placebo).items()]
        self.tasks = {t.id: t for t in tasks}
        self._probe(self._arm(BASE, {}), 0)
        names = [stage.name for stage in next(iter(self.probed.values()))]
        for i in range(len(names) if arms else 0):
            for arm in arms:
                self._work(arm, i)
            if self.parts.strategy.learns:
                self._consolidate(arms, i)
            for arm in arms:
                # The placebo is what the adapted arm ends against; the matrix of all stages is the latter's alone.
                if arm.changed and (arm.name == ADAPTED or i + 1 == len(names)):
                    self._probe(arm, i + 1)
        return summarise(self._outcomes(), primary=tasks[0].family, learning=self.learning, stages=names)

    def check(self, tasks: Sequence[Task], placebo: Sequence[Task] = ()) -> Work:
        """Plan the run and refuse what cannot end well, before anything is written; return what each arm works on."""
        if not tasks:
            raise ConfigError("the benchmark has no tasks: widen its choice of tasks, or choose another benchmark")
        worlds = sorted({t.world for t in tasks} - {""}) or [""]
        self.probed = {w: self._stages(tasks, w, worlds) for w in worlds}
        work: Work = {}
        if any(stage.train for stages in self.probed.values() for stage in stages):
            work[ADAPTED] = self.probed
        if work and placebo:
            there = sorted({t.world for t in placebo} - {""}) or [""]
            work[PLACEBO] = {w: self._stages(placebo, w if w in there else there[0], there) for w in self.probed}
        self._check(work)
        return work

    def _arm(self, name: str, work: dict[str, Sequence[Stage]]) -> Arm:
        memories = {w: self.parts.knowledge.open(self.folder / "memory" / f"{name}{w and '-'}{w}") for w in self.probed}
        return Arm(name=name, work=work, skills=dict.fromkeys(self.probed, Skill()), memories=memories)

    def _stages(self, tasks: Sequence[Task], world: str, worlds: Sequence[str]) -> Sequence[Stage]:
        return self.parts.curriculum.stages(dealt(tasks, world, worlds), self.plan.seed)

    def _check(self, work: Work) -> None:
        """Refuse a model without its key, parts of learning that do not fit together, and splits that do not."""
        parts, count = self.parts, len(next(iter(self.probed.values())))
        answering(parts.model, parts.writer, parts.supervisor)
        if work:
            fitting_together(parts.model, parts.data, parts.strategy, parts.trainer, stages=count)
        split_alike(work, self.probed)

    def _work(self, arm: Arm, i: int) -> None:
        """Let the agent work on the train tasks of stage `i`; its memory learns when all are done."""
        arm.latest = {w: [] for w in arm.work}
        for skill, memory, worlds in arm.groups():
            tasks = list({t.id: t for w in worlds for t in arm.work[w][i].train}.values())
            wave = Wave(
                tasks=tasks, attempts=self.plan.attempts, temperature=self.plan.temperature, seed=self.plan.seed
            )
            episodes = self._roll(f"work ({arm.name})", wave, skill, memory, supervised=True)
            for world in worlds:
                ids = {t.id for t in arm.work[world][i].train}
                arm.latest[world] += [e for e in episodes if e.task in ids]
            name = TRAIN if arm.name == ADAPTED else f"{arm.name} {TRAIN}"
            self.entries += [Entry(arm=name, stage=i, on=i + 1, episode=e) for e in episodes]
        for world, memory in arm.memories.items():
            for episode in arm.latest[world]:
                memory.record(episode)
                arm.changed = arm.changed or self.parts.knowledge.remembers

    def _consolidate(self, arms: Sequence[Arm], i: int) -> None:
        """Turn the stage's episodes into skill, every arm in every world from equally many examples.

        An arm without any cannot be matched. The agent's own learns without it then, and the report says so; a placebo
        that has nothing to be compared with learns nothing. A strategy that makes or chooses its own sessions notes
        how many it learned from.
        """
        found = {(a.name, w): self._examples(a, w, i)(a.latest[w]) for a in arms for w in self.probed}
        count = min((len(examples) for examples in found.values() if examples), default=0)
        for world in self.probed:
            compared = True
            for arm in arms:  # the agent's own comes first
                examples = found[arm.name, world]
                used = matched(examples, count, self.plan.seed) if compared else []
                compared = self._learn(arm, world, i, used, len(examples), compared=compared)

    def _learn(
        self, arm: Arm, world: str, i: int, examples: Sequence[Example], available: int, *, compared: bool
    ) -> bool:
        """Let an arm learn in one world; False if there was too little to learn from, or nothing to compare it with."""
        model, skill = self.parts.model, arm.skills[world]
        past, episodes = arm.past.setdefault(world, []), arm.latest[world]
        ground = [model.id, skill.digest, self.plan.learning, self.plan.seed, [digest_of(e) for e in examples]]
        before = [[p.skill.digest, [digest_of(e) for e in p.examples]] for p in past]
        lab = LearningLab(
            trainer=self.parts.trainer,
            weights=model.weights,
            model_id=model.id,
            seed=self.plan.seed,
            root=self.store.folder("adapters", digest_of([*ground, before, [e.digest for e in episodes]])),
            past=tuple(past),
            episodes=tuple(episodes),
            attempt=partial(self._practise, arm, world, i),
            convert=self._examples(arm, world, i, own=True),
            demonstrated=self.parts.data.demonstrates,
        )
        facts: dict[str, Any] = {"world": world, "stage": i + 1, "examples": len(examples), "available": available}
        facts["tasks"] = len({e.task for e in examples})
        if self.parts.strategy.imitates and not self.parts.data.native:
            facts["native"] = False
        self._release()
        try:
            if not compared:  # said to strategies too that do not look at the examples
                raise NothingToLearn("the arm that it is compared with learned nothing there")
            arm.skills[world] = self.parts.strategy.learn(skill, examples, lab)
        except NothingToLearn as error:  # a result: the arm stays as it is, and the report says why
            facts["skipped"] = str(error)
        except TrainingError as error:
            where = f"{arm.name}, stage {i + 1}{f', world {world}' if world else ''}"
            raise TrainingError(f"{where}: {error}") from error
        else:
            facts |= drift(lab, arm.skills[world], examples)
            past.append(Past(examples=tuple(examples), skill=arm.skills[world]))
        arm.changed = arm.changed or arm.skills[world] != skill
        adapters = [adapter.path for adapter in arm.skills[world].adapters]
        facts |= {"skill": arm.skills[world].digest, "adapters": [*map(self.store.below, adapters)], **lab.notes}
        self.learning.setdefault(arm.name, []).append(facts)
        self.tracker.event("consolidated", {"arm": arm.name, **facts, "adapters": adapters})
        return "skipped" not in facts

    def _examples(
        self, arm: Arm, world: str, i: int, *, own: bool = False
    ) -> Callable[[Sequence[Episode]], Sequence[Example]]:
        """Return what turns an arm's episodes of a stage into examples; with `own`, of what the agent itself did."""
        data = TrajectoryData() if own and self.parts.data.demonstrates else self.parts.data
        writer = self.parts.writer and Kept(self.parts.writer, self.store)
        materials = Materials(tasks={t.id: t for t in arm.work[world][i].train}, writer=writer)
        return lambda episodes: data.examples(episodes, self.plan.seed, materials)

    def _practise(
        self, arm: Arm, world: str, i: int, skill: Skill, attempts: int, temperature: float, name: str, tasks: int
    ) -> list[Episode]:
        """Let a strategy try the stage's train tasks again; the memory learns nothing from it."""
        drawn = some(arm.work[world][i].train, tasks, f"{name}/{self.plan.seed}")
        wave = Wave(tasks=drawn, attempts=attempts, temperature=temperature, seed=self.plan.seed, name=name)
        episodes = self._roll(f"practice ({arm.name})", wave, skill, arm.memories[world])
        self.entries += [Entry(arm=f"{arm.name} practice {TRAIN}", stage=i, on=i + 1, episode=e) for e in episodes]
        self._release()
        return episodes

    def _release(self) -> None:
        """Let models give back what they hold of a graphics card, since a training comes next."""
        models: tuple[object, ...] = (self.parts.model, self.parts.writer, self.parts.supervisor)
        for model in models:
            if isinstance(model, Resident):
                model.release()

    def _probe(self, arm: Arm, stage: int) -> None:
        """Try the held-out tasks of every stage with the arm as it is."""
        for skill, memory, worlds in arm.groups():
            place: dict[str, int] = {}
            for world in worlds:
                for on, part in enumerate(self.probed[world], 1):
                    for task in part.held_out:
                        place.setdefault(task.id, on if task.family in part.name.split("+") else 0)
            wave = Wave(tasks=[self.tasks[name] for name in place])
            for episode in self._roll(f"probe ({arm.name})", wave, skill, memory):
                self.entries.append(Entry(arm=arm.name, stage=stage, on=place[episode.task], episode=episode))

    def _outcomes(self) -> list[Outcome]:
        leaks = {t.id: measure(t.issue, t.gold).score if t.gold else None for t in self.tasks.values()}
        return [
            Outcome.of(e.episode, arm=e.arm, stage=e.stage, on=e.on, leakage=leaks.get(e.episode.task))
            for e in self.entries
        ]

    def _skilled(self, skill: Skill) -> Model:
        """Return the model with a skill; only the latest is kept, since each holds caches of its own."""
        if self._model is None or self._model[0] != skill.digest:
            self._model = (skill.digest, self.parts.model.with_skill(skill))
        return self._model[1]

    def _roll(self, name: str, wave: Wave, skill: Skill, memory: Memory, *, supervised: bool = False) -> list[Episode]:
        parts = self.parts
        model = self._skilled(skill)
        if supervised and parts.supervisor is not None:
            model = Supervised(model=model, supervisor=parts.supervisor)
        sessions = Sessions(
            agent=parts.agent,
            benchmark=parts.benchmark,
            workspace=parts.workspace,
            store=self.store,
            model=model,
            skill=skill,
        )
        attempts = wave.plan(memory)
        self.progress.phase(name, len(attempts))

        def observe(attempt: Attempt, episodes: list[Episode], fresh: bool) -> None:
            self.progress.done(episodes[0])
            if fresh:
                self.tracker.event("session", {"phase": name, **_told(episodes)})

        episodes = roll(sessions, attempts, parallel=self.plan.parallel, observe=observe)
        if episodes and all(e.infrastructure for e in episodes):
            first = episodes[0]
            why = first.trajectory.error or first.verdict.error or f"exit {first.trajectory.exit}"
            raise ModelError(f"all {len(attempts)} sessions of {name} failed for reasons of the machine: {why}")
        return episodes


def _told(episodes: Sequence[Episode]) -> Mapping[str, Any]:
    """Return what is logged of a session that was run."""
    trajectory = episodes[0].trajectory
    return {
        "digest": trajectory.digest,
        "task": trajectory.task,
        "exit": trajectory.exit,
        "steps": len(trajectory.steps),
        "resolved": {e.task: e.resolved for e in episodes},
        "seconds": round(trajectory.seconds, 3),
    }
