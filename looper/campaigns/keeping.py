"""Keep or discard: a gain has to stand out of the measured noise and pay for the lines that it adds."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import fmean, variance

from looper.campaigns.options import Campaign
from looper.errors import TrainingError
from looper.parsing import parsed


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


def noise(groups: Iterable[Mapping[int, float]]) -> tuple[float, int]:
    """Return the standard deviation of one score over seeds, pooled over programs, and its degrees of freedom.

    Raises TrainingError where seeds change nothing.
    """
    repeated = [list(scores.values()) for scores in groups if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in repeated)
    sigma = math.sqrt(sum((len(scores) - 1) * variance(scores) for scores in repeated) / freedom)
    if not sigma > 0.0:
        raise TrainingError(
            f"the program scores {repeated[0][0]:.6f} under each of its {len(repeated[0])} seeds, so that nothing "
            "tells the noise: let train.py use the seed that it is given"
        )
    return sigma, freedom


def critical(gate: float, freedom: int) -> float:
    """Return the standard errors that leave as much above them as `gate` does where the noise is known (Student)."""
    from scipy.special import ndtr, stdtrit

    return float(stdtrit(freedom, ndtr(gate)))


def rule(gains: Sequence[float], *, sigma: float, freedom: int, lines: int, options: Campaign) -> Ruling:
    """Decide on a change by its paired gains, one a seed.

    A difference of two runs has the variance 2 sigma^2. With n seeds, a change is kept if the mean gain is above the
    price of its lines by more than the critical number of standard errors. Where only the mean itself is, it is run on
    another seed, until there are no more. A change that does nothing passes each look with the probability
    1 - Phi(gate), 2.3 % for a gate of 2; with two further seeds there are up to three looks.
    """
    gain, error = fmean(gains), sigma * math.sqrt(2.0 / len(gains))
    price = options.line_price * max(lines, 0)
    paid = f"{gain:+.4f} ± {error:.4f} on {len(gains)} seed{'s' * (len(gains) > 1)} for {lines:+d} lines"
    if gain - critical(options.gate, freedom) * error > price:
        return Ruling(decision=Decision.keep, gain=gain, error=error, reason=f"beyond the noise: {paid}")
    if gain <= price:
        return Ruling(decision=Decision.discard, gain=gain, error=error, reason=f"no gain: {paid}")
    decision = Decision.repeat if len(gains) <= options.pairs else Decision.discard
    return Ruling(decision=decision, gain=gain, error=error, reason=f"inside the noise: {paid}")


def added(before: str, after: str) -> int:
    """Return the lines of code that a change adds, less those that it removes; comments and docstrings do not count."""
    return _lines(after) - _lines(before)


def _lines(program: str) -> int:
    tree = parsed(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return len(ast.unparse(tree).splitlines())
