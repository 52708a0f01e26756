"""What a campaign asks of a program that is to be improved, and of the judge that measures its versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeGuard

from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.measurement import Measurement
from looper.protocols import Workspace
from looper.records import Task


class Improvable(Protocol):
    """A `train.py` with its contract, its budget and its judge."""

    @property
    def goal(self) -> str:
        """First paragraph of what an agent is told."""
        ...

    @property
    def conditions(self) -> str:
        """Where results hold: place, budget and split; statements in the memory carry it."""
        ...

    @property
    def budget_kind(self) -> BudgetKind:
        """Unit of `budget`."""
        ...

    @property
    def budget(self) -> float:
        """What one training may spend."""
        ...

    @property
    def corpus_split(self) -> int:
        """Which texts are held out."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a measurement beside code, seed and machine."""
        ...

    @property
    def one_at_a_time(self) -> bool:
        """Whether trainings disturb one another: seconds are the budget, or there is one GPU."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the results has to know; said before the run and beside its table."""
        ...

    @property
    def branches(self) -> str:
        """First part of the name of the git branch that each campaign leaves; '' for none."""
        ...

    @property
    def repository(self) -> str:
        """The user's git repository that a campaign's branch is made in a clone of; '' if there is none."""
        ...

    @property
    def revision(self) -> str:
        """The commit of that repository that campaigns start from; '' if there is none."""
        ...

    def with_split(self, split: int) -> Self:
        """Return the same with other texts held out. Raises ConfigError where that cannot be had."""
        ...

    def files(self) -> dict[str, str]:
        """Return the files that an agent sees, path -> text; `train.py` is the unchanged program."""
        ...

    def task(self, train: str, *, id: str) -> Task:
        """Return the task of improving one version of train.py."""
        ...

    def contract(self, patch: str) -> str:
        """Return what a patch does against the contract, one sentence; '' if it changes train.py alone."""
        ...

    def measure(self, train: str, *, seed: int, workspace: Workspace) -> Measurement:
        """Train one version with one seed and score it; what the code does wrong is in the answer."""
        ...


def is_improvable(part: object) -> TypeGuard[Improvable]:
    """Tell whether a benchmark is worked on in campaigns; asks its class alone, as `identity` may prepare data."""
    return all(hasattr(type(part), name) for name in ("measure", "contract", "conditions"))
