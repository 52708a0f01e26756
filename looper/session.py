"""One task: recall, open, act, diff, judge; every step content-addressed, so that nothing is done twice."""

from __future__ import annotations

import platform
import traceback
from dataclasses import dataclass

from looper.agents.loop import Agent
from looper.errors import MachineError, PatchError, StoreError, WorkspaceError
from looper.protocols import Benchmark, Model, Workspace
from looper.records import (
    INFRASTRUCTURE_EXITS,
    Episode,
    Exit,
    Recall,
    Skill,
    Task,
    Trajectory,
    Verdict,
    digest_of,
)
from looper.store import Store

FORMAT = 2
"""Version of the sessions' course: raised when agent, tools or judge change what an old episode would be."""
DRAWS = 1
"""Version of the replies' random draws. They do not hang on `FORMAT`: where a mended tool plays no part, a session that
is run again is the very same."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at one task's public half, and the tasks (one a world) whose tests judge it."""

    tasks: tuple[Task, ...]
    recall: Recall
    number: int
    """Which try this is; 0 for probes."""
    stream: str
    """Random stream of the replies; '' at temperature 0, where nothing is drawn."""
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Runs attempts with one model and skill, each of them once."""

    agent: Agent
    workspace: Workspace
    store: Store
    model: Model
    skill: Skill

    def digest(self, attempt: Attempt) -> str:
        """Return the content address of an attempt's trajectory."""
        return self._address(attempt, FORMAT)

    def _address(self, attempt: Attempt, version: int) -> str:
        task = attempt.tasks[0]
        opening = self.agent.opening(
            task, attempt.recall, terse=self.model.knows_protocol, playbook=self.skill.playbook
        )
        return digest_of(
            {
                "format": version,
                "task": task.public(),
                "opening": [message.model_dump() for message in opening],
                "model": self.model.id,
                "skill": self.skill.digest,
                "agent": self.agent.identity(),
                "box": self._box(task),
                "attempt": [attempt.number, attempt.stream, attempt.temperature],
            }
        )

    def _box(self, task: Task) -> list[object]:
        """Return what identifies the place that commands run in: the sandbox, and the Python that they find."""
        return [dict(self.workspace.identity), task.source.environment or platform.python_version()]

    def act(self, attempt: Attempt) -> tuple[Trajectory, bool]:
        """Return the attempt's session, and whether it had to be run now."""
        digest = self.digest(attempt)
        trajectory = self.store.trajectory(digest)
        fresh = trajectory is None or trajectory.exit in INFRASTRUCTURE_EXITS
        if trajectory is None or fresh:
            trajectory = self._act(attempt, digest)
            self.store.add_trajectory(trajectory)
        return trajectory, fresh

    def _act(self, attempt: Attempt, digest: str) -> Trajectory:
        task = attempt.tasks[0]
        try:
            with self.workspace.open(task.source) as box:
                return self.agent.run(
                    task,
                    box,
                    self.model,
                    recall=attempt.recall,
                    skill=self.skill,
                    digest=digest,
                    draws=self._address(attempt, DRAWS),
                    attempt=attempt.number,
                    temperature=attempt.temperature,
                )
        except (WorkspaceError, OSError) as error:  # a box that could not be opened or read is a recorded episode
            self.model.forget(digest)
            return Trajectory(
                digest=digest, task=task.id, messages=(), steps=(), patch="", exit=Exit.ERROR, error=str(error)[-4000:]
            )


@dataclass(frozen=True, kw_only=True)
class Sessions(Actor):
    """Runs and judges attempts."""

    benchmark: Benchmark

    def known(self, attempt: Attempt) -> list[Episode] | None:
        """Return the attempt's episodes if all are stored and none failed for the machine's sake."""
        digest = self.digest(attempt)
        out = []
        for task in attempt.tasks:
            episode = self.store.episode(_episode_digest(digest, task))
            if episode is None or episode.infrastructure:
                return None
            out.append(episode)
        return out

    def run(self, attempt: Attempt) -> tuple[list[Episode], bool]:
        """Return the attempt's judged episodes, and whether a session had to be run for them."""
        trajectory, fresh = self.act(attempt)
        return [self._judged(task, trajectory) for task in attempt.tasks], fresh

    def _judged(self, task: Task, trajectory: Trajectory) -> Episode:
        digest = _episode_digest(trajectory.digest, task)
        known = self.store.episode(digest)
        if known is not None and not known.infrastructure:
            return known
        episode = Episode(
            digest=digest,
            task=task.id,
            family=task.family,
            world=task.world,
            pair=task.pair_id,
            trajectory=trajectory,
            verdict=self._verdict(task, trajectory.patch),
        )
        self.store.add_episode(episode)
        return episode

    def _verdict(self, task: Task, patch: str) -> Verdict:
        """Judge a patch in a second, fresh box; one patch of one task is judged once."""
        key = digest_of([FORMAT, task.public(), task.tests.model_dump(mode="json"), patch, self._box(task)])
        known = self.store.verdict(key)
        if known is not None:
            return known
        verdict = self._judge(task, patch)
        if not verdict.error:
            self.store.add_verdict(key, verdict)
        return verdict

    def _judge(self, task: Task, patch: str) -> Verdict:
        try:
            with self.workspace.open(task.source, patch) as box:
                return self.benchmark.judge(task, box)
        except PatchError:
            return Verdict(resolved=False, applied=False)
        except (StoreError, MachineError):
            raise
        except Exception:
            return Verdict(resolved=False, error=traceback.format_exc()[-2000:])


def _episode_digest(trajectory: str, task: Task) -> str:
    return digest_of([trajectory, task.id, task.tests.model_dump(mode="json")])
