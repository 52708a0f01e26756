"""What a campaign leaves behind: its trials, and the campaign as a whole."""

from __future__ import annotations

import math
from enum import StrEnum

from pydantic import Field

from looper.records import Record


class Fate(StrEnum):
    """What became of a trial."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    """The program did not get to a score: an exception, no finite number, out of time or memory."""
    REFUSED = "refused"
    """The judge does not accept how the score was made."""
    NONE = "none"
    """There was no proposal: nothing changed, or the memory blocked it each time."""


class Trial(Record):
    """One experiment: what was proposed, what it scored, and what was done with it."""

    number: int
    """From 1."""
    fate: Fate
    reason: str
    """Why, in a sentence."""
    description: str
    patch: str
    """Change of the program since the best kept one, as a unified diff."""
    commit: str
    """Digest of the program after the change, 7 digits; '' for none."""
    methods: tuple[str, ...] = ()
    """Methods of the pack that are in the change, by its syntax tree."""
    scores: dict[int, float] = Field(default_factory=dict)
    """Bits per byte by seed, lower is better."""
    gain: float | None = None
    """Mean improvement on the best kept program over the seeds that both ran on; positive is better."""
    error: float | None = None
    """Standard error of the gain, from the noise of the baselines."""
    lines: int = 0
    """Lines added less lines removed."""
    best: float
    """Score of the best kept program after this trial, on the campaign's first seed."""
    runs: int = 0
    """Trainings that the trial took."""
    train_seconds: float = 0.0
    memory_mb: float = 0.0
    seconds: float = 0.0
    """Wall-clock of its parts as they ran first: session, training, scoring."""
    prompt_tokens: int | None = None
    """None where no model was asked."""
    completion_tokens: int | None = None
    cost: float | None = None
    experiment: str = ""
    """Id in the campaign's memory file."""
    episode: str = ""
    """Digest of the session that proposed it."""
    log: str = ""
    """Last lines of a run that crashed or was refused."""
    failure: str = ""
    """Why the session failed for reasons that are not the proposer's; what it left by then was tried all the same."""

    @property
    def score(self) -> float | None:
        """Bits per byte on the campaign's first seed; None where the trial got to no score."""
        return next(iter(self.scores.values()), None)


class Played(Record):
    """A finished campaign."""

    name: str
    arm: str
    replicate: int
    seed: int
    scope: str
    baseline: dict[int, float]
    """Bits per byte of the unchanged program by seed."""
    sigma: float
    """Standard deviation of one score, pooled over all programs that ran on several seeds."""
    freedom: int
    """Its degrees of freedom."""
    trials: tuple[Trial, ...]
    stopped: str
    """Why it ended."""
    program: str
    """The best kept program."""
    finals: dict[int, float | None]
    """Bits per byte of the best kept program on fresh seeds; None where it failed, which counts as no gain."""
    final_baseline: dict[int, float | None]
    """Those of the unchanged program."""
    failed: int = 0
    """Sessions that failed for reasons that are not the proposer's; where there are any, it is played again."""
    runs: int
    """Trainings in all."""
    train_seconds: float
    seconds: float
    earlier: tuple[str, ...] = ()
    """Names of the campaigns whose results were in the memory at the start."""
    memory: str = ""
    """Name of its memory file, below the run's folder."""
    label: str = ""
    """What the campaign is called in that file, where its name was taken; '' for its name."""

    @property
    def gain(self) -> float:
        """Improvement of the best kept program on the unchanged one, mean over fresh seeds; nan without."""
        pairs = [(self.final_baseline[seed], score) for seed, score in self.finals.items()]
        gained = sum(a - b for a, b in pairs if a is not None and b is not None)
        return gained / len(pairs) if pairs else math.nan

    def best_at(self, count: int) -> float:
        """Return the score of the best kept program after so many trials, on the campaign's first seed."""
        scores = [trial.best for trial in self.trials if trial.number <= count]
        return scores[-1] if scores else next(iter(self.baseline.values()))
