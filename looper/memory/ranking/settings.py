"""The switches and constants of the ranking; every part of a score can be turned off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from looper.errors import ConfigError


class Cost(StrEnum):
    """What an experiment's gain is divided by."""

    WALL = "wall"
    """Seconds, relative to the median experiment."""
    DOLLARS = "dollars"
    """US dollars, relative to the median experiment."""
    FREE = "free"
    """Nothing: all experiments cost the same."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How methods and queries are scored.

    score = P(delta > gate) * E[max(delta, 0)] / cost * (1 - crash risk) * fatigue * relevance

    Here delta is the next measured improvement, given a draw of the true effect from its posterior
    (`looper.memory.ranking.score`). Sizes marked "in sigma" are multiples of one measurement's noise, so that they hold
    for any metric and machine.
    """

    thompson: bool = True
    """Draw the effect from its posterior (explores); off takes the posterior's mean."""
    scopes: bool = True
    """Tell scopes apart, each shrunk to its parent; off pools all evidence as if measured in one place."""
    recency: bool = True
    """Discount old evidence."""
    crash: bool = True
    """Multiply by the probability that the run survives."""
    literature: bool = True
    """Let the claims of sources set the prior; off starts every method from 0."""
    fatigue: bool = True
    """Push down what was shown again and again and passed over."""
    cost: Cost = Cost.WALL
    """What the gain is divided by."""
    relevance: float = 1.0
    """The method that fits the question best counts 1 + this, one that does not fit counts 1; 0 ignores the text."""

    boldness: float = 0.25
    """Share of the posterior's standard deviation that the draw has: 1 is Thompson's rule, less explores less."""
    gate: float = 2.0
    """Improvement that counts as real, in sigma."""
    sigma: float = 0.0065
    """Noise of one measurement where no experiment has measured it, in the metric's unit."""
    prior_sd: float = 2.0
    """Spread of true effects among methods, in sigma."""
    scope_sd: float = 1.0
    """How far an effect moves from a scope to the next special one, in sigma."""
    half_life: float = 50.0
    """Experiments after which evidence counts half."""
    unit: str = "bpb"
    """Unit of the metric; of a claim in another unit only the sign counts."""
    claim_sd: float = 3.0
    """Noise of one claim, in sigma; three claims at most add up."""
    claim_cap: float = 2.0
    """Largest effect that a claim is believed, in sigma."""
    claim_size: float = 0.5
    """Effect that a claim in another unit stands for, in sigma."""
    crash_prior: float = 0.05
    """Crash risk of a method that was never run."""
    crash_strength: float = 4.0
    """Runs that the crash prior is worth."""
    rho: float = 0.7
    """Factor for each time that something was passed over."""
    query_words: int = 6
    """Words of a new query."""

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        for name in ("sigma", "prior_sd", "half_life", "claim_sd", "crash_strength"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name}={getattr(self, name)} has to be above 0")
        for name in ("scope_sd", "gate", "relevance", "claim_cap", "claim_size"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be below 0")
        if not 0.0 <= self.boldness <= 1.0:
            raise ConfigError(f"boldness={self.boldness} has to lie between 0 and 1")
        for name in ("rho", "crash_prior"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ConfigError(f"{name}={getattr(self, name)} has to lie between 0 and 1")
        if self.query_words < 1:
            raise ConfigError(f"query_words={self.query_words}; a query needs at least one word")

    @property
    def spread(self) -> float:
        """The boldness in force."""
        return self.boldness if self.thompson else 0.0
