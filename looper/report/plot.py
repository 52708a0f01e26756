"""Plots as inline SVG: rates by arm, paired differences, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from looper.metrics.wording import interval_text, rate_text
from looper.report.svg import rule, tick
from looper.report.table import COMPARISONS, Metrics, ordered_families, shown_arms, shown_comparisons

WIDTH, LEFT, RIGHT = 520, 2, 22
ROW, HEAD, FOOT = 24, 30, 44
Series = tuple[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One estimate with its interval, in percentage points."""

    family: str
    name: str
    style: str
    """CSS class, which also decides the marker's shape."""
    row: Mapping[str, Any]
    text: str


def rates(metrics: Metrics) -> Markup:
    """Draw the resolve rate of every family and arm with its interval."""
    marks = [
        Mark(family=name, name=arm, style=_style(arm), row=row, text=rate_text(row))
        for name, family in ordered_families(metrics)
        for arm in shown_arms(metrics)
        if (row := family["resolve_rate"].get(arm))
    ]
    return _forest(marks, "Resolve rate by family and arm with 95 % intervals", "resolved, %", 0.0, 1.0)


def differences(metrics: Metrics) -> Markup:
    """Draw the paired differences of every family with their intervals; '' where there are none."""
    marks = [
        Mark(family=name, name=COMPARISONS[key], style=f"c-{key}", row=row, text=interval_text(row))
        for name, family in ordered_families(metrics)
        for key in shown_comparisons(metrics)
        if (row := family[key])
    ]
    if not marks:
        return Markup("")
    reach = max(0.1, *(abs(mark.row[end]) for mark in marks for end in ("low", "high")))
    reach = next(limit for limit in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if reach <= limit + 1e-9)
    title = "Paired differences by family with 95 % intervals"
    return _forest(marks, title, "difference in resolve rate, points", -reach, reach)


def _style(arm: str) -> str:
    return f"a-{arm}" if arm in ("base", "adapted", "placebo") else "a-other"


def _forest(marks: Sequence[Mark], title: str, axis: str, low: float, high: float) -> Markup:
    """Draw one row a mark under a heading a family; the words that go with it are in the svg's description."""
    families = list(dict.fromkeys(mark.family for mark in marks))
    height = len(families) * HEAD + len(marks) * ROW + FOOT
    label = 168
    inner = WIDTH - LEFT - RIGHT - label

    def x(value: float) -> float:
        return LEFT + label + inner * (value - low) / (high - low)

    parts = [_ticks(x, low, high, height - FOOT, axis)]
    y = 0.0
    for family in families:
        y += HEAD
        parts.append(Markup('<text class="family" x="{}" y="{}">{}</text>').format(LEFT, y - 9, family))
        for mark in (m for m in marks if m.family == family):
            middle = y + ROW / 2 - 4
            parts.append(_mark(mark, x, middle))
            y += ROW
    told = "; ".join(f"{mark.family}, {mark.name}: {mark.text}" for mark in marks)
    return _svg(parts, height, title, told)


def _mark(mark: Mark, x: Any, y: float) -> Markup:
    row = mark.row
    left, centre, right = x(row["low"]), x(row["estimate"]), x(row["high"])
    shape = {
        "a-adapted": Markup('<rect x="{:.1f}" y="{:.1f}" width="10" height="10"/>').format(centre - 5, y - 5),
        "a-placebo": Markup('<path d="M{:.1f} {:.1f} l6 10 h-12 z"/>').format(centre, y - 6),
        "c-transfer_over_placebo": Markup('<path d="M{:.1f} {:.1f} l7 7 l-7 7 l-7 -7 z"/>').format(centre, y - 7),
    }.get(mark.style, Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/>').format(centre, y))
    return Markup(
        '<g class="{}"><title>{} {}: {}</title><text class="name" x="{}" y="{:.1f}">{}</text>'
        '<path class="ci" d="M{:.1f} {:.1f} H{:.1f} M{:.1f} {:.1f} v8 M{:.1f} {:.1f} v8"/>{}</g>'
    ).format(
        *(mark.style, mark.family, mark.name, mark.text),
        *(LEFT + 8, y + 4.5, mark.name),
        *(left, y, right, left, y - 4, right, y - 4),
        shape,
    )


def _ticks(x: Any, low: float, high: float, bottom: float, axis: str) -> Markup:
    parts = Markup("")
    for i in range(5):
        value = low + (high - low) * i / 4
        zero = low < 0 and abs(value) < 1e-9
        parts += Markup(
            '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="14" y2="{:.1f}"/>'
            '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>'
        ).format("zero" if zero else "rule", x(value), x(value), bottom, x(value), bottom + 16, _signed(value, low))
    middle = (x(low) + x(high)) / 2
    return parts + Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
        middle, bottom + 34, axis
    )


def _signed(value: float, low: float) -> str:
    whole = round(100 * value)
    if low >= 0 or whole == 0:
        return str(whole)
    return f"+{whole}" if whole > 0 else f"−{-whole}"


def _svg(parts: Sequence[Markup], height: float, title: str, told: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}"><desc>{}</desc>{}</svg>').format(
        WIDTH, height, f"{title}. {told}", told, Markup("").join(parts)
    )


def curves(learning: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Draw every training history in `learning`: its heading and a plot of its losses over steps."""
    drawn = []
    for name, history in _histories(learning, ()):
        series = _series(history)
        if series:
            drawn.append((name, _curve(series, name)))
    return drawn


def _histories(node: Any, path: tuple[str, ...]) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    if not isinstance(node, Mapping):
        return []
    found: list[tuple[str, Sequence[Mapping[str, Any]]]] = []
    for key, value in node.items():
        if key == "history" and isinstance(value, (list, tuple)) and all(isinstance(row, Mapping) for row in value):
            found.append((" ".join(path) or "training", value))
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value, 1):
                found += _histories(item, (*path, str(key), str(i)))
        else:
            found += _histories(value, (*path, str(key)))
    return found


def _series(history: Sequence[Mapping[str, Any]]) -> list[Series]:
    names = dict.fromkeys(key for row in history for key in row if "loss" in key)
    found: list[Series] = []
    for name in names:
        dots = [
            (float(row.get("step", row.get("epoch", i))), float(row[name]))
            for i, row in enumerate(history, 1)
            if isinstance(row.get(name), (int, float)) and row[name] == row[name]
        ]
        if len(dots) > 1:
            found.append((name, dots))
    return found


def _curve(series: Sequence[Series], title: str) -> Markup:
    height, top, bottom, left = 220, 16, 40, 52
    xs = [x for _, dots in series for x, _ in dots]
    ys = [y for _, dots in series for _, y in dots]
    high = max(ys) * 1.05 or 1.0
    span = max(xs) - min(xs) or 1.0

    def at(x: float, y: float) -> str:
        return (
            f"{left + (WIDTH - left - RIGHT) * (x - min(xs)) / span:.1f} "
            f"{height - bottom - (height - top - bottom) * y / high:.1f}"
        )

    parts = [_frame(left, top, height - bottom, high, min(xs), max(xs))]
    for i, (name, dots) in enumerate(series):
        line = "M" + " L".join(at(x, y) for x, y in dots)
        parts.append(Markup('<path class="line s{}" d="{}"/>').format(i % 3, line))
        parts.append(
            Markup('<text class="key s{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
                i % 3, WIDTH - RIGHT, top + 12 + 16 * i, name.replace("_", " ")
            )
        )
    told = "; ".join(f"{name} from {dots[0][1]:.3g} to {dots[-1][1]:.3g}" for name, dots in series)
    return _svg(parts, height, f"Loss over training, {title}", told)


def _frame(left: float, top: float, bottom: float, high: float, first: float, last: float) -> Markup:
    parts = Markup("")
    for i in range(3):
        y = bottom - (bottom - top) * i / 2
        parts += rule(left, WIDTH - RIGHT, y) + tick(left - 6, y + 4, f"{high * i / 2:.2g}", "end")
    for x, anchor, value in ((left, "start", first), (WIDTH - RIGHT, "end", last)):
        parts += tick(x, bottom + 16, f"{value:g}", anchor)
    return parts + tick((left + WIDTH - RIGHT) / 2, bottom + 32, "step")
