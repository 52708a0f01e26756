"""A sweep as one table: a row for every run, the overrides that differ first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from looper.metrics.paired import compare
from looper.report.campaign import arms_table, is_campaign
from looper.report.stream import has_stream, stream_table
from looper.report.table import (
    COMPARISONS,
    Metrics,
    difference_cell,
    rate_cell,
    shown_arms,
    shown_comparisons,
)

Run = tuple[Mapping[str, Any], Metrics]
"""A run's overrides (`{"strategy": "ewc"}`) and its metrics."""


def grid(runs: Sequence[Run]) -> Table:
    """Return one table over the runs' primary families. Raises ValueError for no runs."""
    if not runs:
        raise ValueError("a grid needs at least one finished run")
    keys = differing(runs)
    arms = list(dict.fromkeys(arm for _, metrics in runs for arm in shown_arms(metrics)))
    comparisons = [key for key in COMPARISONS if any(key in shown_comparisons(metrics) for _, metrics in runs)]
    table = Table(title=f"{len(runs)} runs, primary family", title_justify="left", show_lines=True, box=box.HORIZONTALS)
    for key in keys:
        table.add_column(key)
    if len({metrics["primary"] for _, metrics in runs}) > 1 or not keys:
        keys = [*keys, ""]
        table.add_column("family")
    for arm in arms:
        table.add_column(arm, justify="right")
    for key in comparisons:
        table.add_column(COMPARISONS[key], justify="right")
    against = [_against(metrics, runs[0][1]) for _, metrics in runs]
    if any(against):
        table.add_column("against the first run", justify="right")
    for (overrides, metrics), difference in zip(runs, against, strict=True):
        cells = [Text(metrics["primary"] if key == "" else shown(overrides, key)) for key in keys]
        cells += [rate_cell(metrics["resolve_rate"].get(arm)) for arm in arms]
        cells += [difference_cell(metrics[key]) for key in comparisons]
        if any(against):
            cells.append(difference_cell(difference))
        table.add_row(*cells)
    made = sum(metrics[key] is not None for _, metrics in runs for key in comparisons) + sum(map(bool, against))
    if made > 1:
        table.caption = f"{made} comparisons: at p < .05 one in twenty differs by chance alone"
        table.caption_justify = "left"
    return table


def grid_tables(runs: Sequence[Run]) -> RenderableType:
    """Return the grid's table and, where runs had several stages, what each held after every stage."""
    keys = differing(runs)
    campaigns = [run for run in runs if is_campaign(run[1])]
    if campaigns:
        others = [run for run in runs if not is_campaign(run[1])]
        table = arms_table([({key: shown(o, key) for key in keys}, m) for o, m in campaigns], keys)
        return Group(table, grid_tables(others)) if others else table
    streams = [(", ".join(shown(o, key) for key in keys) or "run", m) for o, m in runs if has_stream(m)]
    return Group(grid(runs), stream_table(streams)) if streams else grid(runs)


def _against(metrics: Metrics, first: Metrics) -> dict[str, Any] | None:
    """Compare a run with the first one, task by task; None where they did not try the same tasks.

    Compared are the agents that the runs ended with: the adapted one, or the base agent where there was no experience.
    """
    a, b = _last(metrics), _last(first)
    if metrics is first or not a or a.keys() != b.keys():
        return None
    if not any(a[task] is not None and b[task] is not None for task in a):
        return None
    return compare(a, b).model_dump()


def _last(metrics: Metrics) -> Mapping[str, float | None]:
    """Return the values by task of the agent that a run ended with."""
    tasks: Mapping[str, Mapping[str, float | None]] = metrics.get("tasks", {})
    return tasks.get("adapted") or tasks.get("base", {})


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the override keys whose value is not the same in all runs, in order of appearance."""
    keys = dict.fromkeys(key for overrides, _ in runs for key in overrides)
    return [key for key in keys if len({shown(overrides, key) for overrides, _ in runs}) > 1]


def shown(overrides: Mapping[str, Any], key: str) -> str:
    """Return an override's value as text; `(default)` where the run has none."""
    return str(overrides[key]) if key in overrides else "(default)"
