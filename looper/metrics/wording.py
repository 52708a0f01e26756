"""Rates, differences and p-values in words, the same in the terminal, the page and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "—"

LABELS = {
    "conventions": "positive control (calibrates the instrument)",
    "unlearnable": "negative control",
    "natural": "open question",
    "seen": "forgetting",
}
"""What the bundled families are there for."""


def label_of(family: str) -> str:
    """Return what a family is there for; '' for a family that only has a name."""
    return LABELS.get(family, "")


def percent(value: float) -> str:
    """Return a share as whole per cent: `45 %`."""
    return f"{100 * value:.0f} %"


def points(value: float) -> str:
    """Return a difference in percentage points with its sign: `+12`, `−3`, `0`."""
    whole = round(100 * value)
    return f"+{whole}" if whole > 0 else f"−{-whole}" if whole < 0 else "0"


def p_text(p: float) -> str:
    """Return a p-value: `p = .031`, `p < .001`; never rounded across .05."""
    if p < 0.001:
        return "p < .001"
    text = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    if p < 0.05 and text == "0.050":
        text = "0.0499"
    return f"p = {text.removeprefix('0')}" if p < 0.995 else "p = 1"


def rate_text(rate: Mapping[str, Any] | None) -> str:
    """Return `45 % [39, 52] n 150`, or a dash."""
    if rate is None:
        return ABSENT
    return f"{percent(rate['estimate'])} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}] n {rate['n']}"


def interval_text(difference: Mapping[str, Any] | None) -> str:
    """Return `+12 [+3, +21]`, or a dash."""
    if difference is None:
        return ABSENT
    low, high = points(difference["low"]), points(difference["high"])
    return f"{points(difference['estimate'])} [{low}, {high}]"


def detectable_text(difference: Mapping[str, Any]) -> str:
    """Return `detects 14`: the smallest difference in points found four times in five; `detects none`."""
    effect = difference["detectable_effect"]
    return "detects none" if effect is None else f"detects {_at_least_one(effect)}"


def _at_least_one(effect: float) -> str:
    return f"{max(1, round(100 * effect))}"
