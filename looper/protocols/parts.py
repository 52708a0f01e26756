"""What the loop asks of the parts that a session and a run consist of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from looper.records import CommandResult, Conversation, Episode, Query, Recall, Reply, Skill, Source, Task, Verdict


class Box(Protocol):
    """One fresh checkout in a sandbox. Paths are relative to its root; none leads outside."""

    def run(self, command: str, *, seconds: float) -> CommandResult:
        """Run a shell command; never raises for what the command does."""
        ...

    def read(self, path: str) -> str:
        """Return a file's text. Raises FileNotFoundError, IsADirectoryError, WorkspaceError (outside)."""
        ...

    def write(self, path: str, text: str) -> None:
        """Write a file, making its folders. Raises WorkspaceError (outside), IsADirectoryError."""
        ...

    def read_bytes(self, path: str, *, limit: int) -> bytes:
        """Return a file's bytes; raises as `read` does, also WorkspaceError for more than `limit` bytes."""
        ...

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file of bytes, as `write` does."""
        ...

    def diff(self) -> str:
        """Return everything changed since the base commit as a unified diff ('' if nothing)."""
        ...


class Workspace(Protocol):
    """Makes boxes."""

    def open(self, source: Source, patch: str = "") -> AbstractContextManager[Box]:
        """Open a fresh box at the source's base commit with `patch` applied.

        Raises WorkspaceError if the checkout is not clean or the patch does not apply.
        """
        ...

    @property
    def level(self) -> str:
        """Isolation in force: bubblewrap, landlock or rlimits."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything of the box that decides what happens in it: level and limits."""
        ...

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why each stronger level cannot be had."""
        ...


class Benchmark(Protocol):
    """A set of tasks and their judge."""

    def load(self, seed: int) -> Sequence[Task]:
        """Return all tasks, of all families and worlds, in a fixed order; the primary family's first."""
        ...

    @property
    def has_placebo(self) -> bool:
        """Whether there are tasks that teach nothing."""
        ...

    def placebo(self, seed: int) -> Sequence[Task]:
        """Return the tasks whose sessions train the placebo arm (same uses as `load`); empty if there are none."""
        ...

    def judge(self, task: Task, box: Box) -> Verdict:
        """Run the hidden tests in a second, fresh box that holds the agent's patch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a curriculum: tasks to work on, and tasks never trained on."""

    name: str
    train: tuple[Task, ...]
    held_out: tuple[Task, ...]


class Curriculum(Protocol):
    """Splits tasks into ordered stages."""

    def stages(self, tasks: Sequence[Task], seed: int) -> Sequence[Stage]:
        """Return the stages; no task's pair is in both halves of any of them."""
        ...


class Model(Protocol):
    """A language model that answers chats."""

    @property
    def id(self) -> str:
        """Identity with everything that decides its answers (weights digest, precision)."""
        ...

    @property
    def knows_protocol(self) -> bool:
        """Whether the model was trained on the tool language and needs no manual in its prompt."""
        ...

    @property
    def weights(self) -> Path | None:
        """Folder of weights that an adapter can be trained on; None for a model that cannot be trained here."""
        ...

    def tokens(self, text: str) -> int:
        """Count (or estimate) the tokens of a text."""
        ...

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch; the company a conversation is in never changes its answer."""
        ...

    def with_skill(self, skill: Skill) -> Model:
        """Return this model with a skill's adapters applied."""
        ...

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A model that can say before it is asked anything whether it could answer."""

    def check(self) -> None:
        """Raise ConfigError for what is missing, such as a key."""
        ...


@runtime_checkable
class Resident(Protocol):
    """A model that may hold memory of a graphics card, which a training needs, between its answers."""

    def release(self) -> None:
        """Give that memory back; the next reply loads the model again, and is the same."""
        ...


class Knowledge(Protocol):
    """The knowledge layer as an option: opens one memory for each arm and world of a run."""

    @property
    def remembers(self) -> bool:
        """Whether what is recorded can be recalled."""
        ...

    def open(self, folder: Path) -> Memory:
        """Open the memory kept in a folder; options that keep nothing may return one for all."""
        ...


class Memory(Protocol):
    """What one line of experience left to look up."""

    def recall(self, query: Query) -> Recall:
        """Return notes for a task."""
        ...

    def record(self, episode: Episode) -> None:
        """Learn from a finished train episode."""
        ...


class Progress(Protocol):
    """Shows how far a run is."""

    def phase(self, name: str, total: int) -> None:
        """Begin a phase of `total` sessions."""
        ...

    def done(self, episode: Episode) -> None:
        """Count one finished session."""
        ...


class Tracker(Protocol):
    """Receives what happens in a run."""

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Record an event."""
        ...

    def finish(self, metrics: dict[str, Any]) -> None:
        """Record the final metrics and close; a run that failed sends the event `failed`, then finishes with none."""
        ...
