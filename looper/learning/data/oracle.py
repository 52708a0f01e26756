"""Reference patches as answers to issues: the control that trains on another format than the agent acts in."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import TrainingError
from looper.learning.data.native import in_order
from looper.protocols import Materials
from looper.records import Episode, Example, Message, Task

LOG = logging.getLogger(__name__)


def worked_tasks(episodes: Sequence[Episode], materials: Materials) -> list[tuple[Task, Episode]]:
    """Return the tasks of some episodes in order, each with its first episode that has a prompt.

    Raises TrainingError for a task that is not among the materials.
    """
    found: dict[str, tuple[Task, Episode]] = {}
    for episode in in_order(episodes):
        task = materials.tasks.get(episode.task)
        if task is None:
            raise TrainingError(
                f"the task {episode.task} is not at hand ({len(materials.tasks)} others are), so its reference patch "
                "is unknown; give the benchmark the options that the episode was recorded with"
            )
        if len(episode.trajectory.messages) >= 2:
            found.setdefault(episode.task, (task, episode))
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class OracleData:
    """The session's own prompt, answered at once with the reference patch as a unified diff; one example a task.

    An agent that has to act through tool calls is not helped by it: the failing control.
    """

    @property
    def native(self) -> bool:
        """A diff is no action."""
        return False

    @property
    def demonstrates(self) -> bool:
        """The examples are reference patches, whatever the sessions did."""
        return True

    @property
    def rejects(self) -> bool:
        """All are to be imitated."""
        return False

    def examples(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Sequence[Example]:
        """Return the examples in order of task. Raises TrainingError for a task that is not among the materials."""
        skipped: Counter[str] = Counter()
        out: dict[str, Example] = {}
        for task, episode in worked_tasks(episodes, materials):
            if not task.gold.strip():
                skipped["without a reference patch"] += 1
                continue
            answer = Message(role="assistant", content=task.gold.strip("\n"))
            messages = (*episode.trajectory.messages[:2], answer)
            example = Example(task=task.id, episode=episode.digest, messages=messages, weights=(0.0, 0.0, 1.0))
            out[task.id] = example
        LOG.info("%d reference patches; left out: %s", len(out), dict(skipped) or "none")
        return tuple(out.values())
