"""Pieces that the axes of all plots of numbers have: a line across, and the number or word beside it."""

from __future__ import annotations

from markupsafe import Markup


def rule(left: float, right: float, y: float) -> Markup:
    """Return a line across the plot."""
    return Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(*map(_at, (left, right, y, y)))


def tick(x: float, y: float, text: object, anchor: str = "middle") -> Markup:
    """Return a number or word of an axis."""
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(_at(x), _at(y), anchor, text)


def _at(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"
