"""What a measurement may spend: training tokens, steps of the reference batch, or seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from looper.errors import ConfigError

CONTEXT = 64
"""Tokens of a window; the same as prepare.py's, which imports torch."""
REFERENCE_BATCH = 8
"""Windows in a step of the bundled train.py."""


class BudgetKind(Enum):
    """Unit of a budget. Under tokens and steps a measurement repeats to the last digit; seconds are wall-clock."""

    tokens = "tokens"
    steps = "steps"
    seconds = "seconds"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An amount of one kind, and what it comes to in tokens."""

    kind: BudgetKind
    amount: float
    pace: float
    """Tokens a second that a budget of seconds is planned with."""

    @property
    def tokens(self) -> int:
        """Tokens that are handed out at most: under seconds, those that the pace promises."""
        if self.kind is BudgetKind.tokens:
            return int(self.amount)
        return int(self.amount * (self.pace if self.kind is BudgetKind.seconds else REFERENCE_BATCH * CONTEXT))

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of training, None where tokens decide."""
        return self.amount if self.kind is BudgetKind.seconds else None

    def check(self, limit_seconds: float) -> None:
        """Raise ConfigError for amounts that no run could spend."""
        if self.pace <= 0:
            raise ConfigError(f"benchmark.pace={self.pace} must be above 0 tokens a second")
        if self.tokens < REFERENCE_BATCH * CONTEXT:
            raise ConfigError(
                f"benchmark.budget={self.amount:g} {self.kind.value} is less than one step of "
                f"{REFERENCE_BATCH} x {CONTEXT} tokens; give more"
            )
        if self.kind is not BudgetKind.seconds and self.amount != int(self.amount):
            raise ConfigError(f"benchmark.budget={self.amount:g} is no whole number of {self.kind.value}")
        if (self.seconds or 0.0) >= limit_seconds:
            raise ConfigError(
                f"benchmark.budget={self.amount:g} seconds leave nothing of benchmark.limit_seconds={limit_seconds:g} "
                "for the start and the hand-over; raise the limit"
            )
