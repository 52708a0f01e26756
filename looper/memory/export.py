"""The whole memory as JSON lines and back again, and a campaign as autoresearch's results.tsv."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from looper.errors import StoreError
from looper.memory.check import check
from looper.memory.database import open_database, snapshot, writing
from looper.memory.events import Head, canonical, head
from looper.memory.ingestion.untrusted import visible
from looper.memory.rows import Decision, Experiment, Outcome, Status, Verdict
from looper.memory.schema import MIGRATIONS, VERSION
from looper.memory.store import MemoryStore

FORMAT = "looper-memory"
"""Key of the first line; its value is the version of the schema."""
BATCH = 1000

_ORDER = {
    "event": "id",
    "paper": "id",
    "chunk": "id",
    "embedding": "chunk",
    "method": "id",
    "method_source": "method, paper, locator",
    "retrieval": "event",
    "retrieval_item": "retrieval, rank",
    "experiment": "event",
    "experiment_method": "experiment, method",
    "outcome": "event",
    "verdict": "event",
}
"""Every table that is not made from another, referred ones first, and the order of its rows."""
_JSON = {
    ("event", "data"),
    ("paper", "authors"),
    ("method", "data"),
    ("retrieval", "policy"),
    ("retrieval_item", "parts"),
    ("experiment", "config"),
}
_GIBI = 1024.0**3


def export(store: MemoryStore, out: TextIO) -> int:
    """Write everything as JSON lines, one state of the file; returns how many lines.

    The first line holds the version and the head of the log, each other one a table's name and a row of it. Equal
    stores give equal text.
    """
    count = 1
    with snapshot(store.connection, store.path):
        state = head(store.connection)
        out.write(canonical({FORMAT: VERSION, "events": state.events, "head": state.hash}) + "\n")
        for table, order in _ORDER.items():
            cursor = store.connection.execute(f"SELECT * FROM {table} ORDER BY {order}")
            columns = [column[0] for column in cursor.description]
            for row in cursor:
                values = {name: _told(table, name, value) for name, value in zip(columns, row, strict=True)}
                out.write(canonical({"table": table, "row": values}) + "\n")
                count += 1
    return count


def restore(lines: Iterable[str], path: Path) -> int:
    """Make a new file from exported lines; returns how many rows it holds.

    Raises StoreError, leaving no file, if one is there already, a line is wrong, or the result is not whole.
    """
    if path.exists():
        raise StoreError(f"{path} exists; restore into a new file, or move this one away first")
    draft = path.with_name(path.name + ".part")
    _remove(draft)
    numbered = enumerate(lines, start=1)
    try:
        version, expected = _first(next(numbered, (1, "")))
        connection = open_database(draft, migrations=MIGRATIONS[:version])
        try:
            count = _fill(connection, draft, numbered)
        finally:
            connection.close()
        open_database(draft).close()  # brings an older export up to today's schema
        problems = check(draft, expected)
        if problems:
            raise StoreError(f"the export is not whole: {problems[0]} ({len(problems)} problems)")
        draft.rename(path)
    finally:
        _remove(draft)
    return count


def results(store: MemoryStore, campaign: str) -> str:
    """Return a campaign as results.tsv: commit, val_bpb, memory_gb, status, description.

    The commit is the last part of the experiment's id, seven characters at most. A crash has the metric 0.000000 and,
    where it is unknown, the memory 0.0, as autoresearch writes it; any other unknown memory is left empty. Experiments
    that have no verdict yet, or no metric, are left out, except that a baseline counts as kept; an inconclusive change
    was not kept, so it reads `discard`.
    """
    store.require_campaign(campaign)
    experiments = store.experiments(campaign)
    metric, lines = "", []
    for experiment in experiments:
        outcome = store.outcome(experiment.id)
        line = _result(experiment, outcome, store.verdict(experiment.id)) if outcome else ""
        if outcome and line:
            if metric not in ("", outcome.metric_name):
                raise StoreError(
                    f"campaign {campaign!r} measures {metric} and {outcome.metric_name}; a table holds one"
                )
            metric = outcome.metric_name
            lines.append(line)
    header = "\t".join(("commit", metric or "val_bpb", "memory_gb", "status", "description"))
    return "\n".join((header, *lines)) + "\n"


# ---------------------------------------------------------------- results.tsv


def _result(experiment: Experiment, outcome: Outcome, verdict: Verdict | None) -> str:
    if outcome.status is not Status.OK or (verdict and verdict.decision is Decision.CRASH):
        status = "crash"
    elif verdict is None:
        status = "" if experiment.parent or experiment.diff else "keep"
    else:
        status = "keep" if verdict.decision is Decision.KEEP else "discard"
    if not status or (outcome.metric is None and status != "crash"):
        return ""
    commit = re.split(r"[:/@]", experiment.id)[-1][:7]
    value = 0.0 if status == "crash" or outcome.metric is None else outcome.metric
    unknown = "0.0" if status == "crash" else ""
    memory = unknown if outcome.memory is None else f"{outcome.memory / _GIBI:.1f}"
    return "\t".join((commit, f"{value:.6f}", memory, status, " ".join(visible(experiment.description).split())))


# ---------------------------------------------------------------- JSON lines


def _told(table: str, column: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return json.loads(value) if (table, column) in _JSON else value


def _stored(table: str, column: str, value: Any) -> Any:
    if (table, column) in _JSON:
        return canonical(value)
    if isinstance(value, dict):
        return base64.b64decode(value["base64"], validate=True)
    return value


def _first(numbered: tuple[int, str]) -> tuple[int, Head]:
    try:
        values = json.loads(numbered[1])
        version, expected = values[FORMAT], Head(events=values["events"], hash=values["head"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"line 1 is not the first line of an exported memory: {error!r}") from error
    if version not in range(1, VERSION + 1):
        raise StoreError(f"the export has version {version}, this looper reads up to {VERSION}; update looper")
    return version, expected


def _fill(connection: sqlite3.Connection, path: Path, numbered: Iterator[tuple[int, str]]) -> int:
    columns = {table: {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} for table in _ORDER}
    count = 0
    going_on = True
    while going_on:
        going_on = False
        with writing(connection, path):
            for number, line in numbered:
                try:
                    _insert(connection, columns, json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise StoreError(f"line {number} is not a row of an exported memory: {error!r}") from error
                except sqlite3.IntegrityError as error:
                    raise StoreError(f"line {number} does not fit the lines before: {error}") from error
                count += 1
                going_on = count % BATCH == 0
                if going_on:
                    break
    return count


def _insert(connection: sqlite3.Connection, columns: Mapping[str, set[str]], line: Mapping[str, Any]) -> None:
    table, row = line["table"], line["row"]
    if set(row) != columns[table]:  # also keeps foreign words out of the statement
        raise ValueError(f"columns of {table} are {sorted(columns[table])}")
    values = [_stored(table, name, value) for name, value in row.items()]
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", values)
    if table == "method":
        connection.execute(
            "INSERT INTO method_text (id, name, summary) VALUES (?, ?, ?)", (row["id"], row["name"], row["summary"])
        )


def _remove(draft: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + ending).unlink(missing_ok=True)
