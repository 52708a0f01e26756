"""Best score so far by experiment, a panel for each arm: median and range over its campaigns, other arms in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from looper.report.svg import rule, tick

Row = Mapping[str, Any]
WIDTH, COLUMNS, LEFT, GAP, TITLE, TALL, FOOT = 720, 3, 52, 14, 22, 130, 34
WIDE = (WIDTH - LEFT - GAP * (COLUMNS - 1)) / COLUMNS


def best_by_arm(arms: Mapping[str, Row]) -> Markup:
    """Draw one panel for each arm with a curve; all share both axes. Empty for fewer than two arms."""
    curves = {name: arm["curve"] for name, arm in arms.items() if arm["curve"]}
    if len(curves) < 2:
        return Markup("")
    low = min(point["low"] for curve in curves.values() for point in curve)
    high = max(point["high"] for curve in curves.values() for point in curve)
    count = max(1, *(len(curve) - 1 for curve in curves.values()))
    reach = (high - low) or 1.0

    def at(number: int, value: float) -> str:
        return f"{WIDE * number / count:.1f} {TALL * (high - value) / reach:.1f}"

    def line(curve: Sequence[Row], key: str) -> list[str]:
        return [at(number, point[key]) for number, point in enumerate(curve)]

    panels = []
    for place, (name, curve) in enumerate(curves.items()):
        others = [line(other, "median") for known, other in curves.items() if known != name]
        band = line(curve, "high") + line(curve, "low")[::-1]
        panels.append(_panel(place, name, line(curve, "median"), band, others))
        last = curve[-1]
        panels.append(_axes(place, low, high, count, f"{last['median']:.3f}"))
    rows = -(-len(curves) // COLUMNS)
    told = "; ".join(f"{name} {curve[-1]['median']:.3f}" for name, curve in curves.items())
    return Markup('<svg class="panels" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH,
        rows * (TITLE + TALL + FOOT),
        f"Best score so far by experiment, median over campaigns at the end: {told}",
        Markup("").join(panels),
    )


def _corner(place: int) -> tuple[float, float]:
    row, column = divmod(place, COLUMNS)
    return LEFT + column * (WIDE + GAP), TITLE + row * (TITLE + TALL + FOOT)


def _panel(place: int, name: str, median: list[str], band: list[str], others: list[list[str]]) -> Markup:
    x, y = _corner(place)
    drawn = Markup('<path class="band" d="M{}Z"/>').format(" L".join(band))
    drawn += Markup("").join(Markup('<path class="line other" d="M{}"/>').format(" L".join(path)) for path in others)
    drawn += Markup('<path class="line s0" d="M{}"/>').format(" L".join(median))
    return Markup('<g transform="translate({:.1f} {:.1f})"><text x="0" y="-7">{}</text>{}</g>').format(
        x, y, name, drawn
    )


def _axes(place: int, low: float, high: float, count: int, end: str) -> Markup:
    x, y = _corner(place)
    parts = tick(x + WIDE, y - 7, end, "end")
    for value, level in ((high, y), (low, y + TALL)):
        parts += rule(x, x + WIDE, level)
        if place % COLUMNS == 0:
            parts += tick(LEFT - 6, level + 4, f"{value:.3f}", "end")
    for number, anchor in ((0, "start"), (count, "end")):
        parts += tick(x + WIDE * number / count, y + TALL + 15, number, anchor)
    return parts
