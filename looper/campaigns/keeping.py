"""Keep or discard: a gain has to stand out of the measured noise and pay for the lines that it adds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean, stdev

from looper.campaigns.options import Campaign
from looper.errors import TrainingError


class Decision(Enum):
    """What to do with a change."""

    keep = "keep"
    discard = "discard"
    repeat = "repeat"
    """Run change and parent again on another seed."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """A decision with the figures that it stands on."""

    decision: Decision
    gain: float
    error: float
    reason: str


def deviation(baseline: Mapping[int, float]) -> float:
    """Return the standard deviation of a score over seeds. Raises TrainingError where seeds change nothing."""
    sigma = stdev(baseline.values())
    if not sigma > 0.0:
        raise TrainingError(
            f"the baseline scores {next(iter(baseline.values())):.6f} under each of its {len(baseline)} seeds, so that "
            "nothing tells the noise: let train.py use the seed that it is given"
        )
    return sigma


def rule(gains: Sequence[float], *, sigma: float, lines: int, options: Campaign) -> Ruling:
    """Decide on a change by its paired gains, one a seed.

    A difference of two runs has the variance 2 sigma^2. With n seeds, a change is kept if the mean gain less `gate`
    standard errors is above the price of its lines. Where only the mean itself is, it is run on another seed, until
    there are no more.
    """
    gain, error = fmean(gains), sigma * math.sqrt(2.0 / len(gains))
    price = options.line_price * lines
    paid = f"{gain:+.4f} ± {error:.4f} on {len(gains)} seed{'s' * (len(gains) > 1)} for {lines:+d} lines"
    if gain - options.gate * error > price:
        return Ruling(decision=Decision.keep, gain=gain, error=error, reason=f"beyond the noise: {paid}")
    if gain <= price:
        return Ruling(decision=Decision.discard, gain=gain, error=error, reason=f"no gain: {paid}")
    decision = Decision.repeat if len(gains) <= options.pairs else Decision.discard
    return Ruling(decision=decision, gain=gain, error=error, reason=f"inside the noise: {paid}")
