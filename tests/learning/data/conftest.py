"""Real sessions: the scripted oracle in the real agent loop, judged by real hidden tests."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.benchmark import EVALUATION, SEED_STRIDE
from looper.benchmarks.bugs.draw import Draw, draw
from looper.benchmarks.bugs.family import conventions_family
from looper.benchmarks.repair import judge_repair
from looper.pretraining.box import MemoryBox
from looper.pretraining.oracle import Oracle
from looper.protocols import Materials
from looper.records import Episode, Recall, Skill, Trajectory
from looper.workspaces.local import LocalWorkspace
from looper.workspaces.sandbox import Level

AGENT = Agent(prompt=Prompt(), budget=Budget())


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """Episodes of some tasks, and their tasks."""

    episodes: tuple[Episode, ...]
    materials: Materials
    draws: tuple[Draw, ...]


@pytest.fixture(scope="session")
def workspace() -> LocalWorkspace:
    return LocalWorkspace(isolation=Level.rlimits)


@pytest.fixture(scope="session")
def sessions(workspace: LocalWorkspace) -> Sessions:
    """Two tasks of a two-copy repository: each with a session that fixed the live copy, and one the other copy.

    The last session of each task holds a failed edit and what cured it.
    """
    family = conventions_family(("north", "south"))
    draws = [draw(family, EVALUATION + 77 * SEED_STRIDE + i, world="A") for i in range(2)]
    episodes = []
    for drawn in draws:
        assert drawn.trees is not None
        for attempt, tree in enumerate((drawn.trees[0], drawn.trees[1])):
            trajectory = play(drawn, tree, attempt, stumble=attempt == 1)
            episodes.append(judged(drawn, trajectory, workspace))
    tasks = {drawn.task.id: drawn.task for drawn in draws}
    return Sessions(episodes=tuple(episodes), materials=Materials(tasks=tasks), draws=tuple(draws))


def play(drawn: Draw, tree: str, attempt: int, *, stumble: bool) -> Trajectory:
    """Return the first of many oracle sessions that is as wanted: with a failed edit in it, or without a mistake."""
    for number in range(2000):
        oracle = Oracle(drawn.bug, AGENT.prompt, Random(f"{number}"), tree=tree, detours=stumble)
        box = MemoryBox(drawn.task.source.files)
        digest = f"{drawn.task.id}-{attempt}"
        found = AGENT.run(drawn.task, box, oracle, recall=Recall(), skill=Skill(), digest=digest, attempt=attempt)
        if not stumble or any(step.action == "edit" and not step.ok for step in found.steps):
            return found
    raise AssertionError("no session with a failed edit")


def judged(drawn: Draw, trajectory: Trajectory, workspace: LocalWorkspace) -> Episode:
    with workspace.open(drawn.task.source, trajectory.patch) as box:
        verdict = judge_repair(drawn.task, box)
    return Episode(
        digest=trajectory.digest,
        task=drawn.task.id,
        family=drawn.task.family,
        world="A",
        pair=drawn.task.pair_id,
        trajectory=trajectory,
        verdict=verdict,
    )
