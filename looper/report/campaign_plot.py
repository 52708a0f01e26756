"""Progress of campaigns as inline SVG: every trial, the kept ones marked, and the band of the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from looper.report.svg import rule, tick

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 280, 56, 16, 16, 40
Row = Mapping[str, Any]


def progress(campaign: Row, trials: Sequence[Row]) -> Markup:
    """Draw the score of each trial, the best so far as a line, kept trials filled, and two deviations of the baseline.

    Trials without a score stand as crosses at the bottom.
    """
    scored = [trial for trial in trials if trial["score"] is not None]
    baseline, sigma = campaign["baseline"], campaign["sigma"]
    values = [baseline + 2 * sigma, baseline - 2 * sigma, *(trial["best"] for trial in trials)]
    reach = max(values) - min(values)
    values += [trial["score"] for trial in scored if trial["score"] < max(values) + reach]  # far worse ones are cut off
    low, high = float(min(values)), float(max(values))
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    count = max(len(trials), 1)

    def x(number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * number / count

    def y(value: float) -> float:
        shown: float = min(value, high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - shown) / (high - low)

    parts = [_axes(x, y, low, high, count)]
    band = '<rect class="band" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    top, bottom = y(baseline + 2 * sigma), y(baseline - 2 * sigma)
    parts.append(Markup(band).format(LEFT, top, WIDTH - LEFT - RIGHT, bottom - top, "baseline ± 2 sigma"))
    path, last = f"M{x(0):.1f} {y(campaign['first']):.1f}", y(campaign["first"])
    for trial in trials:
        last = y(trial["best"])
        path += f" H{x(trial['number']):.1f} V{last:.1f}"
    parts.append(Markup('<path class="line s0" d="{}"/>').format(path))
    parts += [_dot(trial, x(trial["number"]), y) for trial in trials]
    told = f"{len(trials)} trials, best {trials[-1]['best']:.4f} from {campaign['first']:.4f}" if trials else "no trial"
    label = f"Bits per byte by experiment, {campaign['name']}. {told}"
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def _dot(trial: Row, x: float, y: Any) -> Markup:
    title = f"{trial['number']} {trial['description']}: {trial['reason']}"
    if trial["score"] is None:
        cross = '<g class="fail"><title>{}</title><path d="M{:.1f} {:.1f} l6 6 m0 -6 l-6 6"/></g>'
        return Markup(cross).format(title, x - 3, HEIGHT - BOTTOM - 8)
    kind = "kept" if trial["fate"] == "keep" else "left"
    dot = '<g class="{}"><title>{}</title><circle cx="{:.1f}" cy="{:.1f}" r="4.5"/></g>'
    return Markup(dot).format(kind, f"{title} ({trial['score']:.4f})", x, y(trial["score"]))


def _axes(x: Any, y: Any, low: float, high: float, count: int) -> Markup:
    parts = Markup("")
    for i in range(5):
        value = low + (high - low) * i / 4
        parts += rule(LEFT, WIDTH - RIGHT, y(value)) + tick(LEFT - 6, y(value) + 4, f"{value:.3f}", "end")
    for number in sorted({0, count // 2, count}):
        parts += tick(x(number), HEIGHT - BOTTOM + 16, number)
    return parts + tick((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "experiment")
