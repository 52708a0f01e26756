"""The table of an autoresearch campaign, `results.tsv`, read as it was written by many agents."""

from __future__ import annotations

import math
from dataclasses import dataclass

from looper.errors import StoreError
from looper.memory.ingestion.passages import lines_of
from looper.memory.rows import Decision

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
"""What autoresearch writes, in its order."""
_ALSO = {
    "commit": ("hash", "sha", "commit_hash", "rev"),
    "val_bpb": ("bpb", "metric", "score", "val_loss", "loss"),
    "memory_gb": ("memory", "vram_gb", "peak_vram_gb", "peak_memory_gb", "mem_gb"),
    "status": ("decision", "result", "outcome"),
    "description": ("desc", "change", "idea", "notes", "hypothesis"),
    "seed": (),
    "steps": ("num_steps",),
    "wall": ("total_seconds", "wall_s", "seconds", "training_seconds"),
    "cost": ("usd", "cost_usd"),
}
_STATUSES = {
    "keep": Decision.KEEP,
    "kept": Decision.KEEP,
    "baseline": Decision.KEEP,
    "accept": Decision.KEEP,
    "accepted": Decision.KEEP,
    "discard": Decision.DISCARD,
    "discarded": Decision.DISCARD,
    "reject": Decision.DISCARD,
    "rejected": Decision.DISCARD,
    "revert": Decision.DISCARD,
    "reverted": Decision.DISCARD,
    "inconclusive": Decision.INCONCLUSIVE,
    "crash": Decision.CRASH,
    "crashed": Decision.CRASH,
    "fail": Decision.CRASH,
    "failed": Decision.CRASH,
    "oom": Decision.CRASH,
    "timeout": Decision.CRASH,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; None is what it does not tell."""

    line: int
    commit: str
    metric: float | None
    metric_name: str
    memory: float | None
    """Peak, in bytes."""
    decision: Decision | None
    """None for a status that is missing or unknown."""
    timeout: bool
    description: str
    seed: int | None = None
    steps: int | None = None
    wall: float | None = None
    cost: float | None = None


def read_table(text: str, where: str) -> tuple[list[Row], list[str]]:
    """Return the rows of a table, and a sentence for everything odd about it.

    Columns are known by their names, in any order and with others between; a table without names has autoresearch's.
    A metric of 0 or none at all is no measurement. Raises StoreError for a table without rows or without a metric.
    """
    lines = [
        (number, cells)
        for number, cells in enumerate((line.split("\t") for line in lines_of(text.removeprefix("\ufeff"))), 1)
        if any(cell.strip() for cell in cells)
    ]
    if not lines:
        raise StoreError(f"{where} is empty; a campaign writes a row for each experiment")
    notes: list[str] = []
    names = [cell.strip().lower() for cell in lines[0][1]]
    places = _places(names)
    if {"commit", "val_bpb", "status"} & places.keys():
        lines = lines[1:]
    elif len(names) >= 2:
        notes.append(f"{where} names no columns; they are taken for {', '.join(COLUMNS)}")
        places = {name: place for place, name in enumerate(COLUMNS)}
        names = list(COLUMNS)
    if "val_bpb" not in places:
        raise StoreError(f"{where} has the columns {', '.join(names)}, none of them a metric such as val_bpb, by tabs")
    if not lines:
        raise StoreError(f"{where} holds the names of columns and no experiment yet")
    missing = [name for name in COLUMNS if name not in places]
    if missing:
        notes.append(f"{where} has no column {', '.join(missing)}")
    metric_name = names[places["val_bpb"]]
    return [_row(cells, number, places, len(names), metric_name, notes) for number, cells in lines], notes


def _places(names: list[str]) -> dict[str, int]:
    places = {}
    for name, others in _ALSO.items():
        found = next((names.index(one) for one in (name, *others) if one in names), None)
        if found is not None:
            places[name] = found
    return places


def _row(cells: list[str], number: int, places: dict[str, int], width: int, metric_name: str, notes: list[str]) -> Row:
    if len(cells) > width and places.get("description") == width - 1:
        cells = [*cells[: width - 1], " ".join(cells[width - 1 :])]  # a tab inside the description
    told = {name: cells[place].strip() if place < len(cells) else "" for name, place in places.items()}

    def number_of(name: str) -> float | None:
        text = told.get(name, "")
        try:
            value = float(text.replace(",", "")) if text and text not in ("-", "n/a", "N/A", "none", "None") else None
        except ValueError:
            notes.append(f"line {number}: {name} {text!r} is no number")
            return None
        return value

    status = told.get("status", "").lower()
    decision = _STATUSES.get(status)
    if decision is None and status:
        notes.append(f"line {number}: unknown status {status!r}")
    metric = number_of("val_bpb")
    if metric is not None and (metric <= 0.0 or not math.isfinite(metric)):
        metric = None
    if decision is Decision.CRASH and metric is not None:
        notes.append(f"line {number}: a crash with the metric {metric}; the metric is not taken")
        metric = None
    if metric is None and decision is not Decision.CRASH:
        notes.append(f"line {number}: no metric, so it counts as a crash")
        decision = Decision.CRASH
    memory, steps, seed = number_of("memory_gb"), number_of("steps"), number_of("seed")
    return Row(
        line=number,
        commit=told.get("commit", "").lower(),
        metric=metric,
        metric_name=metric_name,
        memory=memory * 2**30 if memory and math.isfinite(memory) else None,
        decision=decision,
        timeout=status == "timeout",
        description=told.get("description", ""),
        seed=_whole(seed),
        steps=_whole(steps),
        wall=_finite(number_of("wall")),
        cost=_finite(number_of("cost")),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value >= 0 else None


def _whole(value: float | None) -> int | None:
    """Return a count, or a seed, as the store can hold it."""
    return int(value) if value is not None and 0 <= value < 2**53 and value == int(value) else None
