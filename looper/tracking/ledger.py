"""What charts and tables need of a run's events: rows of sessions, running rates, curves of losses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("phase", "task", "resolved", "exit", "steps", "seconds", "digest")
"""Columns of the table of episodes."""


@dataclass(kw_only=True)
class Ledger:
    """The sessions that this process ran; those of a run before a kill are in the record that it left."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """One row an episode (a session judged in two worlds is two), in order of completion."""
    _resolved: dict[str, list[bool]] = field(default_factory=dict)

    def add(self, data: Mapping[str, Any]) -> dict[str, float]:
        """Take in a `session` event and return what a chart shows of it, by name."""
        phase = str(data["phase"])
        verdicts = {str(task): bool(resolved) for task, resolved in data["resolved"].items()}
        for task, resolved in verdicts.items():
            facts = (phase, task, resolved, str(data["exit"]), data["steps"], data["seconds"], data["digest"])
            self.rows.append(facts)
        seen = self._resolved.setdefault(phase, [])
        seen += verdicts.values()
        place = slug(phase)
        shown = {f"{place}/steps": float(data["steps"]), f"{place}/seconds": float(data["seconds"])}
        return {f"{place}/resolve_rate_so_far": sum(seen) / len(seen), **shown} if seen else shown


def slug(words: str) -> str:
    """Return words as a part of a chart's name: `probe (base)` becomes `probe_base`."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", words).strip("_")


def place_of(data: Mapping[str, Any]) -> str:
    """Return the chart's folder of a `consolidated` event: arm, stage and, where there is one, world."""
    world = f"/world_{slug(str(data['world']))}" if data.get("world") else ""
    return f"learning/{slug(str(data['arm']))}{world}/stage_{data['stage']}"


def curves(data: Mapping[str, Any]) -> Iterator[tuple[float, dict[str, float]]]:
    """Yield the epoch (or row number) and the numbers of each row of a `consolidated` event's history."""
    for number, row in enumerate(data.get("history") or (), start=1):
        numbers = scalars(row)
        yield numbers.pop("epoch", float(number)), numbers


def scalars(data: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return all numbers in nested mappings, by path; lists, texts, truth values and absent values are no scalars."""
    found: dict[str, float] = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= scalars(value, f"{path}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = float(value)
    return found


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the scalars of a run's final metrics that are worth a chart: not each task's, nor each session's."""
    return scalars({key: value for key, value in metrics.items() if key not in ("tasks", "learning", "matrix")})


def matrix_rows(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[float | str | None]]]:
    """Return header and rows of R[after stage i, on stage j]; an unknown cell is None."""
    matrix: Sequence[Sequence[float | None]] = metrics.get("matrix") or ()
    width = max((len(row) for row in matrix), default=0)
    names = ["base", *(f"stage {i}" for i in range(1, len(matrix)))]
    rows: list[list[float | str | None]] = [[name, *row] for name, row in zip(names, matrix, strict=False)]
    return ["after", *(f"on stage {j}" for j in range(1, width + 1))], rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown; absent values are empty cells."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
