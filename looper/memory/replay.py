"""Replay a recorded campaign: would another policy have found its gains sooner.

Every logged experiment is an arm; a policy chooses arms one after the other, each once, and sees an arm's delta when
it has chosen it. It knows beforehand only the arm's methods, or the words of its description. What this can and cannot
say:

* The gain at k is the sum of the positive deltas among the first k choices. It assumes that changes add up, whatever
  the order; choosing every row of a log that kept all that improved gives that log's own final metric.
  `Measure.BEST` takes the largest single delta instead and needs no such assumption.
* Only what was tried can be chosen: a better idea that no one had is not in the log.
* Deltas hold noise, and a kept one was selected for being large: gains are those of the log, not of a rerun.
* Descriptions were written by someone who knew the idea's lineage, so words may tell a policy more than a
  proposer would know.
* Crash risk, cost and fatigue have no part in it: a log has each arm once, and shows nothing that was not tried.

Each resample draws as many rows as the log has, with replacement; a row drawn twice is still one arm, so a
resample has about 63 % of the log. All policies meet the same resamples, with seeds of their own: intervals are the
2.5th and 97.5th percentiles over resamples, those of a difference to the random order are of paired differences.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from looper.errors import ConfigError
from looper.memory.ranking.baselines import upper_bounds
from looper.memory.ranking.logs import Log, words_of
from looper.memory.ranking.posterior import Array, Bundle, condition, kernel
from looper.memory.ranking.score import rest_of, value_at
from looper.memory.ranking.settings import Ranking
from looper.records import Record

Rows = npt.NDArray[np.int64]
"""Numbers of arms in the log."""


class Policy(StrEnum):
    """Who chooses the next arm."""

    OURS = "ours"
    """Posterior of effects that arms share through their methods or words, and the ranking's value of a draw."""
    UCB = "ucb"
    """Mean of the upper confidence bounds of the arm's methods or words, with the log's noise."""
    KEYWORD = "keyword"
    """Most words in common with the goal; it learns nothing."""
    RANDOM = "random"
    ORDER = "order"
    """As logged."""


class Measure(StrEnum):
    """What the first k choices are worth."""

    SUM = "sum"
    """All positive deltas together."""
    BEST = "best"
    """The largest delta alone."""


class Interval(Record):
    """A mean over resamples and its 95 % interval."""

    mean: float
    low: float
    high: float


class Line(Record):
    """What a policy reached after k choices."""

    policy: Policy
    k: int
    gain: Interval
    over_random: Interval
    """Paired difference to the random order; positive is better."""


def replay(
    log: Log,
    policies: Sequence[Policy] = tuple(Policy),
    *,
    ks: Sequence[int] = (5, 10, 20),
    resamples: int = 2000,
    seed: int = 0,
    goal: str = "",
    measure: Measure = Measure.SUM,
    settings: Ranking | None = None,
) -> list[Line]:
    """Return what every policy reaches after each number of choices.

    Raises ConfigError if k is below 1, the seed below 0, or if keyword is asked for without a goal.
    """
    if not ks or min(ks) < 1 or resamples < 2:
        raise ConfigError(f"a replay needs choices of at least 1 and 2 resamples or more, not {list(ks)}, {resamples}")
    if seed < 0:
        raise ConfigError(f"seed={seed}; give a whole number from 0 on")
    if Policy.KEYWORD in policies and not goal:
        raise ConfigError("the policy 'keyword' looks for the words of a goal: give one, or leave the policy out")
    field = _Field(log, goal, settings or Ranking())
    steps = max(ks)
    gains: dict[Policy, Array] = {}  # (resamples, len(ks))
    for policy in dict.fromkeys((*policies, Policy.RANDOM)):
        found = np.zeros((resamples, len(ks)))
        for number in range(resamples):
            drawn = np.random.default_rng([seed, number])
            arms = np.unique(drawn.integers(len(log.arms), size=len(log.arms)))
            luck = np.random.default_rng([seed, number, zlib.crc32(policy.encode())])
            path = _path(field.deltas[field.choose(policy, arms, steps, luck)], measure)
            found[number] = [path[min(k, len(path)) - 1] for k in ks]
        gains[policy] = found
    return [
        Line(
            policy=policy,
            k=k,
            gain=_interval(gains[policy][:, at]),
            over_random=_interval(gains[policy][:, at] - gains[Policy.RANDOM][:, at]),
        )
        for policy in dict.fromkeys(policies)
        for at, k in enumerate(ks)
    ]


def policies_of(names: str) -> list[Policy]:
    """Return the policies that a text names, with commas between them. Raises ConfigError for an unknown one."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in list(Policy):
            raise ConfigError(f"unknown policy {name!r}; choose among {', '.join(Policy)}")
    return [Policy(name) for name in found]


def measure_of(name: str) -> Measure:
    """Return the measure of a name. Raises ConfigError for an unknown one."""
    if name not in list(Measure):
        raise ConfigError(f"unknown measure {name!r}; choose one of {', '.join(Measure)}")
    return Measure(name)


class _Field:
    """The log as arrays: A arms, W subjects."""

    def __init__(self, log: Log, goal: str, settings: Ranking) -> None:
        self.settings = settings
        self.sigma = log.sigma
        self.deltas = np.array([math.nan if arm.delta is None else arm.delta for arm in log.arms])
        names = {name: i for i, name in enumerate(sorted({name for arm in log.arms for name in arm.subjects}))}
        self.has = np.zeros((len(log.arms), len(names)))  # (A, W)
        for row, arm in enumerate(log.arms):
            self.has[row, [names[name] for name in arm.subjects]] = 1.0
        bundles = [_bundle(arm.subjects, row) for row, arm in enumerate(log.arms)]
        self.prior = kernel(bundles, [""] * len(bundles), settings)  # (A, A)
        asked = set(words_of(goal))
        self.hits = np.array([len(asked & {*arm.subjects, *words_of(arm.text)}) for arm in log.arms])

    def choose(self, policy: Policy, arms: Rows, steps: int, luck: np.random.Generator) -> Rows:
        """Return the arms that the policy chooses, in its order."""
        if policy is Policy.ORDER:
            return arms[:steps]
        shuffled = luck.permutation(arms)
        if policy is Policy.RANDOM:
            return shuffled[:steps]
        if policy is Policy.KEYWORD:
            return shuffled[np.argsort(-self.hits[shuffled], kind="stable")][:steps]
        index = self._ours if policy is Policy.OURS else self._ucb
        chosen: list[int] = []
        left = shuffled
        for _ in range(min(steps, len(arms))):
            at = int(np.argmax(index(left, np.array(chosen, dtype=np.int64), luck)))
            chosen.append(int(left[at]))
            left = np.delete(left, at)
        return np.array(chosen, dtype=np.int64)

    def _ours(self, left: Rows, chosen: Rows, luck: np.random.Generator) -> Array:
        seen = chosen[~np.isnan(self.deltas[chosen])]
        means, sds = condition(
            self.prior[left, left],
            self.prior[np.ix_(left, seen)],
            self.prior[np.ix_(seen, seen)],
            self.deltas[seen] / self.sigma,
            np.ones(len(seen)),
        )
        draws = luck.normal(means, self.settings.spread * sds)
        p, gain = value_at(draws, rest_of(sds, self.settings), self.settings.gate)
        return p * gain

    def _ucb(self, left: Rows, chosen: Rows, luck: np.random.Generator) -> Array:
        rewards = np.nan_to_num(self.deltas[chosen], nan=0.0)
        bounds = upper_bounds(rewards @ self.has[chosen], self.has[chosen].sum(axis=0), sigma=self.sigma)
        rows = self.has[left]
        means: Array = rows @ bounds / np.maximum(rows.sum(axis=1), 1.0)
        return means


def _bundle(subjects: Sequence[str], row: int) -> Bundle:
    """Half of an arm's variance is shared with arms of the same subjects, half is its own."""
    share = math.sqrt(0.5 / max(len(subjects), 1))
    return {**dict.fromkeys((f"shared {name}" for name in subjects), share), f"own {row}": math.sqrt(0.5)}


def _path(deltas: Array, measure: Measure) -> Array:
    gained = np.maximum(np.nan_to_num(deltas, nan=0.0), 0.0)
    return np.cumsum(gained) if measure is Measure.SUM else np.maximum.accumulate(gained)


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(mean=float(values.mean()), low=float(low), high=float(high))


def table(lines: Sequence[Line], *, digits: int = 4) -> str:
    """Return the lines as a Markdown table."""

    def cell(interval: Interval) -> str:
        low, high = f"{interval.low:+.{digits}f}", f"{interval.high:+.{digits}f}"
        return f"{interval.mean:+.{digits}f} [{low}, {high}]"

    rows = ["| policy | choices | gain | over random |", "| --- | --- | --- | --- |"]
    rows += [f"| {line.policy} | {line.k} | {cell(line.gain)} | {cell(line.over_random)} |" for line in lines]
    return "\n".join(rows)
