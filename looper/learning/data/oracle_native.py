"""Reference patches as sessions in the agent's own protocol: what `oracle` says, in the right format."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from looper.errors import ConfigError
from looper.learning.data.changes import Unplayable
from looper.learning.data.native import text_digest, verify
from looper.learning.data.oracle import worked_tasks
from looper.learning.data.worked import Offer, Turn, session_from_patch
from looper.protocols import Materials
from looper.records import Episode, Example, Message, Task

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OracleNative:
    """One session a task that searches, reads, edits as the reference patch does, and calls done.

    It begins with the run's own system prompt and first message, as the task's recorded session does, keeps to the
    tools that this prompt offers, and what it sees is what the tools would print in the task's tree. Where the tree is
    not at hand (a task of a git repository) it is read by `sed`, whose output the patch's own context gives. Tests are
    not run, whatever the prompt says. Left out are patches that the tool language cannot say, that do not fit the
    tree, or that take too many steps.
    """

    steps: int = 15
    """Longest session, in turns; keep to the agent's `budget.steps`."""

    def __post_init__(self) -> None:
        if self.steps < 3:
            raise ConfigError(f"data.steps={self.steps} is too short for a session (read, edit, done); give 3 or more")

    @property
    def native(self) -> bool:
        """The examples are sessions in the agent's own format."""
        return True

    @property
    def demonstrates(self) -> bool:
        """The examples are reference patches, whatever the sessions did."""
        return True

    @property
    def rejects(self) -> bool:
        """All are to be imitated."""
        return False

    def examples(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Sequence[Example]:
        """Return the examples in order of task.

        Raises TrainingError for a task that is not among the materials, or a turn that does not parse back.
        """
        skipped: Counter[str] = Counter()
        out: dict[str, Example] = {}
        for task, episode in worked_tasks(episodes, materials):
            opening = episode.trajectory.messages[:2]
            try:
                turns = session_from_patch(task, Offer.of(opening[0].content))
            except Unplayable as reason:
                skipped[str(reason)] += 1
                continue
            if len(turns) > self.steps:
                skipped[f"over {self.steps} steps"] += 1
                continue
            example = _example(task, episode, opening, turns)
            verify(example)
            out.setdefault(text_digest(example.messages), example)
        LOG.info("%d reference sessions; left out: %s", len(out), dict(skipped) or "none")
        return tuple(out.values())


def _example(task: Task, episode: Episode, opening: Sequence[Message], turns: Sequence[Turn]) -> Example:
    messages = list(opening)
    for turn in turns:
        messages.append(Message(role="assistant", content=turn.reply))
        if turn is not turns[-1]:  # the session ends with `done`, which shows nothing
            messages.append(Message(role="user", content=turn.observation))
    weights = tuple(float(m.role == "assistant") for m in messages)
    return Example(task=task.id, episode=episode.digest, messages=tuple(messages), weights=weights)
