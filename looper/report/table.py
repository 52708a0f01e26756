"""The terminal table of one run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from looper.metrics.wording import ABSENT, detectable_text, interval_text, p_text, percent
from looper.report.campaign import campaign_table, is_campaign
from looper.report.learned import conduct_table, has_conduct, learned_notes
from looper.report.stream import has_stream, stream_table

Metrics = Mapping[str, Any]

ARMS = ("base", "adapted", "placebo")
COMPARISONS = {"forward_transfer": "adapted − base", "transfer_over_placebo": "adapted − placebo"}
LEGEND = (
    "Share of distinct held-out tasks resolved, with its 95 % interval; differences in points, paired by task. "
    '"detects d": a true difference of d points would be found four times in five.'
)


def run_table(metrics: Metrics) -> RenderableType:
    """Return the tables of a run and its verdict, for `rich.print`."""
    if is_campaign(metrics):
        return campaign_table(metrics)
    parts: list[RenderableType] = [results(metrics), Padding(Text(LEGEND, style="dim"), (0, 0, 1, 0)), usage(metrics)]
    if has_conduct(metrics):
        parts.append(conduct_table(metrics))
    if has_stream(metrics):
        parts.append(stream_table([("", metrics)]))
    parts += [Text(line) for line in notes(metrics)]
    verdict = metrics["verdict"]
    parts.append(Padding(Text(verdict["sentence"], style="bold"), (1, 0, 0, 0)))
    parts += [Text(f"- {caveat}") for caveat in verdict["caveats"]]
    return Group(*parts)


def as_text(renderable: RenderableType, width: int = 80) -> str:
    """Return a renderable as plain text of a fixed width, without colour or trailing blanks."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def results(metrics: Metrics) -> Table:
    """Return rates and differences, one row a family, the primary one first."""
    table = Table(title="Resolved on held-out tasks", title_justify="left", show_lines=True, box=box.HORIZONTALS)
    arms = shown_arms(metrics)
    comparisons = shown_comparisons(metrics)
    table.add_column("family")
    for arm in arms:
        table.add_column(arm, justify="right")
    for key in comparisons:
        table.add_column(COMPARISONS[key], justify="right")
    for name, family in ordered_families(metrics):
        label = family["label"].partition(" (")[0]
        cells = [Text(f"{name}\n{label}" if label else name)]
        cells += [rate_cell(family["resolve_rate"].get(arm)) for arm in arms]
        cells += [difference_cell(family[key]) for key in comparisons]
        table.add_row(*cells)
    return table


def shown_arms(metrics: Metrics) -> list[str]:
    """Return the probed arms that any family has: base, adapted, placebo, then others by name."""
    present = {arm for family in metrics["families"].values() for arm in family["resolve_rate"]}
    return [arm for arm in ARMS if arm in present] + sorted(present - set(ARMS))


def shown_comparisons(metrics: Metrics) -> list[str]:
    """Return the comparisons that any family has."""
    return [key for key in COMPARISONS if any(family[key] for family in metrics["families"].values())]


def ordered_families(metrics: Metrics) -> list[tuple[str, Metrics]]:
    """Return the families, the primary one first."""
    return sorted(metrics["families"].items(), key=lambda item: item[0] != metrics["primary"])


def rate_cell(rate: Mapping[str, Any] | None) -> Text:
    """Return `45 %`, its interval and its n on three lines."""
    if rate is None:
        return Text(ABSENT)
    interval = f"[{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"
    return Text(f"{percent(rate['estimate'])}\n{interval}\nn {rate['n']}")


def difference_cell(difference: Mapping[str, Any] | None) -> Text:
    """Return difference, interval, p, and what could be detected on four lines; bold where p < .05."""
    if difference is None:
        return Text(ABSENT)
    estimate, _, interval = interval_text(difference).partition(" ")
    lines = (estimate, interval, p_text(difference["p_value"]), detectable_text(difference))
    return Text("\n".join(lines), style="bold" if difference["p_value"] < 0.05 else "")


def usage(metrics: Metrics) -> Table:
    """Return what the sessions of each arm cost and how they ended."""
    table = Table(title="Sessions", title_justify="left", box=box.HORIZONTALS)
    table.add_column("arm")
    served = any(row.get("served") for row in metrics["usage"].values())
    for column in ("sessions", "steps", "tokens", "seconds", *(("served", "cost") if served else ()), "patched"):
        table.add_column(column, justify="right")
    table.add_column("exits")
    for arm, row in metrics["usage"].items():
        exits = ", ".join(f"{name} {count}" for name, count in row["exits"].items())
        patched = ABSENT if row["patch_rate"] is None else percent(row["patch_rate"]["estimate"])
        spreads = [spread_text(row[key]) for key in ("steps", "tokens", "seconds")]
        total = (served_text(row), cost_text(row)) if served else ()
        table.add_row(Text(arm), str(row["sessions"]), *spreads, *total, patched, Text(exits))
    table.caption = "steps, tokens, seconds: median (90th percentile)"
    if served:
        table.caption += "; served: prompt + generated tokens of all sessions, and their cost"
    table.caption_justify = "left"
    return table


def served_text(row: Mapping[str, Any]) -> str:
    """Return `12,000 + 345`: the prompt's and the generated tokens of all sessions; a dash for an unmetered model."""
    served = row.get("served")
    return f"{served['prompt_tokens']:,} + {served['completion_tokens']:,}" if served else ABSENT


def cost_text(row: Mapping[str, Any]) -> str:
    """Return the cost of all sessions, `unknown` if the price of any reply is; a dash for an unmetered model."""
    served = row.get("served")
    if not served:
        return ABSENT
    cost = served["cost"]
    return "unknown" if cost is None else "under 0.0001" if 0 < cost < 0.0001 else f"{cost:,.4f}"


def spread_text(spread: Mapping[str, float | None]) -> str:
    """Return `12 (31)`: median and 90th percentile; one decimal under 10."""
    median, p90 = spread["median"], spread["p90"]
    if median is None or p90 is None:
        return ABSENT
    return f"{_short(median)} ({_short(p90)})"


def notes(metrics: Metrics) -> list[str]:
    """Return lines on machine failures, leakage, forgetting, what was learned from, and the stages."""
    lines: list[str] = []
    if metrics["infrastructure"]["total"]:
        by_arm = ", ".join(f"{arm} {n}" for arm, n in metrics["infrastructure"].items() if arm != "total" and n)
        lines.append(f"Machine failures (not in the rates): {by_arm}.")
    leakage = metrics["leakage"].get(metrics["primary"])
    if leakage:
        lines.append(
            f"Leakage: issues hold {percent(leakage['mean'])} of the reference patch's lines on average, "
            f"{percent(leakage['share_over_half'])} of them at least half."
        )
    if metrics["forgetting"]:
        drop = metrics["forgetting"]
        lines.append(f"Forgetting on families seen before: {interval_text(drop)} points, {p_text(drop['p_value'])}.")
    train = metrics["train"]
    if train and "verdicts" in train:  # not in runs of older versions, which counted other things by these names
        lines.append(f"Training: {train_text(train)}.")
    return lines + learned_notes(metrics["learning"]) + continual_notes(metrics)


def train_text(train: Mapping[str, Any]) -> str:
    """Return how much of the work was resolved; where worlds share sessions, these are not the verdicts."""
    resolved, verdicts, sessions = train["resolved_verdicts"], train["verdicts"], train["sessions"]
    counted = f"{resolved} of {sessions} sessions"
    if sessions != verdicts:
        counted = f"{resolved} of {verdicts} verdicts ({sessions} sessions in {train['worlds']} worlds)"
    return f"{counted} resolved, {train['unique_resolved']} distinct tasks"


def continual_notes(metrics: Metrics) -> list[str]:
    """Return the stream's measures in points, where there is more than one stage."""
    if len(metrics["matrix"]) <= 2:
        return []
    names = {
        "accuracy": "accuracy",
        "forgetting": "forgetting",
        "forward_transfer": "forward transfer",
        "backward_transfer": "backward transfer",
        "learning_curve_area": "learning-curve area",
    }
    measured = metrics["continual"]
    parts = [f"{name} {measured[key]:.3f}" for key, name in names.items() if measured[key] is not None]
    return [f"Over {len(metrics['matrix']) - 1} stages: {', '.join(parts) or 'nothing measured'}."]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"
