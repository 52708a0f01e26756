"""Metrics as CSV: one row for every rate and difference."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from looper.report.campaign import is_campaign
from looper.report.grid import Run, differing, shown
from looper.report.table import COMPARISONS, ordered_families

NUMBERS = ("estimate", "low", "high", "n", "p_value", "detectable_effect", "won", "lost", "excluded")


def csv_text(runs: Sequence[Run]) -> str:
    """Return the runs' rates and differences as CSV, the overrides that differ as leading columns.

    Shares and differences are fractions, not points; a cell without a value is empty.
    """
    keys = differing(runs)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*keys, "family", "label", "quantity", *NUMBERS])
    for overrides, metrics in runs:
        leading = [shown(overrides, key) for key in keys]
        if is_campaign(metrics):
            quantities = {name: arm["gain"] for name, arm in metrics["arms"].items()}
            quantities |= {f"{row['a']} - {row['b']}": row for row in metrics["comparisons"]}
            for quantity, row in quantities.items():
                writer.writerow([safe(cell) for cell in [*leading, "campaign", "", f"gain.{quantity}", *_numbers(row)]])
            continue
        for name, family in ordered_families(metrics):
            rows = {f"resolve_rate.{arm}": rate for arm, rate in family["resolve_rate"].items()}
            rows |= {key: family[key] for key in COMPARISONS if family[key]}
            for quantity, row in rows.items():
                writer.writerow([safe(cell) for cell in [*leading, name, family["label"], quantity, *_numbers(row)]])
    return stream.getvalue()


def _numbers(row: Mapping[str, Any]) -> list[Any]:
    return ["" if row.get(key) is None else row[key] for key in NUMBERS]


def safe(cell: Any) -> Any:
    """Return a text cell that no spreadsheet takes for a formula; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
