"""Templates: functions written by hand; the grammar draws the rest."""

from __future__ import annotations

from random import Random

from looper.benchmarks.bugs.family import Family
from looper.benchmarks.bugs.grammar import draw_function
from looper.benchmarks.bugs.scope import Function


def draw_template(rng: Random, family: Family) -> Function | None:
    """Return a function from a template."""
    return draw_function(rng, family)
