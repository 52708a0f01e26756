"""The strategy that learns nothing into weights: the control, and memory on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from looper.protocols import Ability, Lab
from looper.records import Example, Skill


@dataclass(frozen=True, kw_only=True)
class NoLearning:
    """Returns the skill as it is."""

    @property
    def learns(self) -> bool:
        """Nothing is learned."""
        return False

    @property
    def imitates(self) -> bool:
        """Nothing is learned."""
        return False

    def asks(self, stages: int) -> frozenset[Ability]:
        """No trainer is used."""
        return frozenset()

    def learn(self, skill: Skill, examples: Sequence[Example], lab: Lab) -> Skill:
        """Return the given skill."""
        return skill
