"""The value of one more experiment: a draw of the effect, the chance to clear the gate, and what that gains.

With a posterior N(m, s^2) of the true effect, in units of one measurement's noise (sigma = 1), and the next
measurement x:

    e ~ N(m, b^2 s^2), seeded by (seed, method)
    x ~ N(e, (1 - b^2) s^2 + 1)

b is `boldness`: 1 is Thompson's rule, which takes the draw for the truth; below 1 a part of the uncertainty stays in x,
where it counts as a chance. Without the draw b is 0. Whatever b, x has the posterior's predictive distribution.

    p    = P(x > gate)
    gain = E[max(x, 0)]        a change that measures worse is thrown away and gains nothing
    value = p * gain * sigma   in the metric's unit

Both factors grow with e, so a worse effect never has the better value; both are positive, so that the other factors
(crash, fatigue, relevance, cost) act alike on promising and on hopeless methods.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from looper.memory.ranking.posterior import Array, Normal
from looper.memory.ranking.settings import Ranking

_STANDARD = NormalDist()


@dataclass(frozen=True)
class Value:
    """What the next experiment is worth, in sigma."""

    draw: float
    p: float
    gain: float


def drawn(normal: Normal, seed: int, subject: str, spread: float) -> float:
    """Return a draw from the posterior, its sd times the spread, that depends on the seed and the subject alone."""
    bits = int.from_bytes(hashlib.sha256(f"{seed}/{subject}".encode()).digest()[:8])
    return normal.mean + spread * normal.sd * _STANDARD.inv_cdf((bits + 0.5) / 2**64)


def value_at(centre: Array, sd: Array, gate: float) -> tuple[Array, Array]:
    """Return P(x > gate) and E[max(x, 0)] for x ~ N(centre, sd^2), elementwise."""
    from scipy.special import ndtr

    at = centre / sd
    gain = centre * ndtr(at) + sd * np.exp(-0.5 * at * at) / math.sqrt(2.0 * math.pi)
    # Far below 0 the two terms cancel; the true value is tiny and positive.
    return ndtr((centre - gate) / sd), np.maximum(gain, 0.0)


def values_of(normals: Mapping[str, Normal], seed: int, settings: Ranking) -> dict[str, Value]:
    """Return the value of trying each subject, given its posterior."""
    draws = np.array([drawn(normal, seed, subject, settings.spread) for subject, normal in normals.items()])
    sds = np.array([normal.sd for normal in normals.values()])
    p, gain = value_at(draws, rest_of(sds, settings), settings.gate)
    found = zip(normals, draws.tolist(), p.tolist(), gain.tolist(), strict=True)
    return {subject: Value(*numbers) for subject, *numbers in found}


def rest_of(sd: Array, settings: Ranking) -> Array:
    """Return the standard deviation of the next measurement around a draw from a posterior of this one."""
    rest: Array = np.sqrt((1.0 - settings.spread**2) * sd * sd + 1.0)
    return rest
