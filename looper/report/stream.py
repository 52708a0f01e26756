"""Tables of a stream: how well each family is held after every stage, in one run or in a row a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from looper.metrics.wording import ABSENT, interval_text, p_text, percent

Metrics = Mapping[str, Any]


def has_stream(metrics: Metrics) -> bool:
    """Whether the run had several stages."""
    return bool(metrics.get("stream"))


def stream_table(runs: Sequence[tuple[str, Metrics]]) -> Table:
    """Return a row for every run: each family's rate after each stage, and its change by the stage after its own."""
    families = list(dict.fromkeys(name for _, metrics in runs for name in metrics["stream"]))
    stages = max(len(metrics["stages"]) for _, metrics in runs)
    table = Table(title="After each stage", title_justify="left", show_lines=True, box=box.HORIZONTALS)
    table.add_column("")
    for after in range(stages + 1):
        table.add_column(f"after {after}" if after else "before", justify="right")
    for name in families:
        table.add_column(f"{name}: kept", justify="right")
    for label, metrics in runs:
        learned = any(row["rate"] for family in metrics["stream"].values() for row in family["stages"][1:])
        cells = [Text("\n".join([label, *families]))]
        for after in range(stages + 1):
            where = f"({metrics['stages'][after - 1]})" if 0 < after <= len(metrics["stages"]) else ""
            rates = [_share(metrics, name, after if learned else 0) for name in families]
            cells.append(Text("\n".join([where, *rates])))
        cells += [_kept(metrics["stream"].get(name)) for name in families]
        table.add_row(*cells)
    table.caption = "kept: change of a family's rate by the stage after its own, paired by task; negative is forgetting"
    table.caption_justify = "left"
    return table


def _share(metrics: Metrics, family: str, after: int) -> str:
    rows = metrics["stream"].get(family, {"stages": []})["stages"]
    rate = rows[after]["rate"] if after < len(rows) else None
    return (
        ABSENT if rate is None else f"{percent(rate['estimate'])} [{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"
    )


def _kept(family: Metrics | None) -> Text:
    if family is None or family["kept"] is None:
        return Text(ABSENT)
    points, _, interval = interval_text(family["kept"]).partition(" ")
    text = "\n".join([points, interval, p_text(family["kept"]["p_value"])])
    return Text(text, style="bold" if family["kept"]["p_value"] < 0.05 else "")
