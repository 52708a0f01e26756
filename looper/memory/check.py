"""Is a memory file whole? The file, its search tables, its log, and every row against the event that wrote it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from looper.errors import StoreError
from looper.memory.database import explained, open_database, statements
from looper.memory.events import Head, verify
from looper.memory.rows import Experiment
from looper.memory.schema import MIGRATIONS
from looper.memory.store import chunks_digest
from looper.memory.tables import (
    CHUNK,
    EXPERIMENT,
    ITEM,
    METHOD,
    METHOD_SOURCE,
    OUTCOME,
    PAPER,
    RETRIEVAL,
    VERDICT,
    Table,
    Values,
)

SEARCH_TABLES = ("chunk_text", "chunk_identifiers", "method_text")
MOST = 100
"""Problems that are listed; a file with more is beyond reading them one by one."""

_SOFT_REFERENCES = (
    ("experiment", "id", "parent", "experiment"),
    ("experiment", "id", "retrieval", "retrieval"),
    ("verdict", "experiment", "baseline", "experiment"),
)


def check(path: Path, expected: Head | None = None) -> list[str]:
    """Return what is wrong with a memory file, at most 100 problems; empty if it is whole.

    Works on a private copy in the temporary folder, one state of the file, so nobody has to wait and nothing is
    changed. `expected` is a head noted earlier (`events.head`): it shows a log that was cut short and rows with it.
    """
    try:
        source = open_database(path, read_only=True)
    except StoreError as error:
        return [str(error)]
    copy = sqlite3.connect("", isolation_level=None)
    try:
        with explained(path):
            source.backup(copy)
            return list(islice(_problems(copy, expected), MOST))
    except StoreError as error:
        return [str(error)]
    finally:
        copy.close()
        source.close()


def _problems(copy: sqlite3.Connection, expected: Head | None) -> Iterator[str]:
    damage = [row[0] for row in copy.execute("PRAGMA integrity_check") if row[0] != "ok"]
    if damage:
        yield from damage
        return  # what else is read from a damaged file means little
    yield from _schema(copy)
    for name in SEARCH_TABLES:
        try:
            copy.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            yield f"search table {name} does not fit what it indexes ({error}); an export, restored, builds it anew"
    yield from verify(copy, expected)
    yield from _references(copy)
    for table in (PAPER, METHOD, RETRIEVAL, EXPERIMENT, OUTCOME, VERDICT):
        yield from _rows(copy, table)
    yield from _method_text(copy)


def _schema(copy: sqlite3.Connection) -> Iterator[str]:
    """Yield tables, indexes and triggers that are missing or changed (the triggers keep the log append-only)."""
    fresh = sqlite3.connect(":memory:")
    for migration in MIGRATIONS:
        for statement in statements(migration):
            fresh.execute(statement)
    query = "SELECT type || ' ' || name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
    found = dict(copy.execute(query))
    for name, sql in fresh.execute(query):
        shadow = any(name.startswith(f"table {table}_") for table in SEARCH_TABLES)
        if not shadow and found.get(name) != sql:
            yield f"{name} is {'changed' if name in found else 'missing'}"
    fresh.close()


def _references(copy: sqlite3.Connection) -> Iterator[str]:
    for table, row, target, _ in copy.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} refers to a {target} that is not there"
    for table, key, column, target in _SOFT_REFERENCES:
        for id, missing in copy.execute(
            f"SELECT {key}, {column} FROM {table} WHERE {column} <> '' AND {column} NOT IN (SELECT id FROM {target})"
        ):
            yield f"{table} {id} names {column} {missing}, which is not there"


def _rows(copy: sqlite3.Connection, table: Table) -> Iterator[str]:
    """Yield rows that have no event, another one, or say something else than it; and events without their row."""
    name, key = table.name, table.columns[0]
    count = len(table.columns)
    for row in copy.execute(
        f"SELECT {table.selected}, event.id, event.kind, event.subject, event.data, "
        f"(SELECT max(id) FROM event AS e WHERE e.subject = {name}.{key} AND e.kind = '{name}') "
        f"FROM {name} JOIN event ON event.id = {name}.event ORDER BY {name}.{key}"
    ):
        id = row[0]
        event, kind, subject, data, last = row[count:]
        if (name, kind) == ("paper", "ingestion"):
            yield f"paper {id} is not complete: its ingestion goes on or was cut off; if so, ingest it again"
            continue
        if (kind, subject) != (name, id):
            yield f"{name} {id} was not written by its event {event}, which is {kind} {subject}"
            continue
        if event != last:
            yield f"{name} {id} stands at event {event}, although event {last} superseded it"
        try:
            yield from _differences(copy, table, id, table.values(row[:count]), json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            yield f"{name} {id} cannot be compared with event {event}: {error!r}"
    for event, subject in copy.execute(
        f"SELECT max(id), subject FROM event WHERE kind = ? AND subject NOT IN (SELECT {key} FROM {name}) "
        "GROUP BY subject ORDER BY 1",
        (name,),
    ):
        yield f"{name} {subject} is missing, although event {event} wrote it"


def _differences(copy: sqlite3.Connection, table: Table, id: str, values: Values, told: Values) -> Iterator[str]:
    for column, value in values.items():
        if value != told[column]:
            yield f"{table.name} {id}: {column} is not what its event says"
    if table is PAPER:
        yield from _chunks(copy, id, told["chunks"])
    elif table is METHOD:
        yield from _method(copy, id, told)
    elif table is RETRIEVAL:
        yield from _items(copy, id, told["items"])
    elif table is EXPERIMENT:
        query = "SELECT method, role FROM experiment_method WHERE experiment = ?"
        if dict(copy.execute(query, (id,))) != told["methods"]:
            yield f"experiment {id}: methods are not what its event says"
        stored = copy.execute("SELECT config_hash FROM experiment WHERE id = ?", (id,)).fetchone()[0]
        if stored != Experiment.model_validate(told).config_hash:
            yield f"experiment {id}: config_hash is not the digest of its config"


def _chunks(copy: sqlite3.Connection, paper: str, told: Values) -> Iterator[str]:
    rows = copy.execute(f"SELECT {CHUNK.selected} FROM chunk WHERE paper = ? ORDER BY position", (paper,))
    if chunks_digest(CHUNK.values(row) for row in rows) != told["digest"]:
        yield f"paper {paper}: its passages are not the {told['count']} that its event digests"


def _method(copy: sqlite3.Connection, id: str, told: Values) -> Iterator[str]:
    stored = copy.execute("SELECT data FROM method WHERE id = ?", (id,)).fetchone()[0]
    if json.loads(stored) != told:
        yield f"method {id}: data are not what its event says"
    rows = copy.execute(f"SELECT {METHOD_SOURCE.selected} FROM method_source WHERE method = ?", (id,))
    sources = {(row[0], row[1]): row[2] for row in rows}
    expected = {(source["paper"], source["locator"]): source["chunk"] for source in told["sources"]}
    if sources.keys() != expected.keys() or any(sources[k] not in (None, expected[k]) for k in sources):
        yield f"method {id}: sources are not what its event says"


def _items(copy: sqlite3.Connection, retrieval: str, told: list[Values]) -> Iterator[str]:
    """Yield changed items; a chunk may have gone with an older text, and experiments that followed mark attempts."""
    attempted = {
        row[0]
        for row in copy.execute(
            "SELECT m.method FROM experiment AS e JOIN experiment_method AS m ON m.experiment = e.id "
            "WHERE e.retrieval = ? AND m.role = 'present'",
            (retrieval,),
        )
    }
    query = f"SELECT {ITEM.selected} FROM retrieval_item WHERE retrieval = ? ORDER BY rank"
    stored = [ITEM.values(row) for row in copy.execute(query, (retrieval,))]
    expected = sorted(told, key=lambda item: item["rank"])
    if len(stored) != len(expected):
        yield f"retrieval {retrieval} has {len(stored)} items, its event {len(expected)}"
        return
    for item, event in zip(stored, expected, strict=True):
        chunk = event["chunk"] if item["chunk"] is not None else None
        tried = event["attempted"] or event["method"] in attempted
        if item != {**event, "chunk": chunk, "attempted": tried}:
            yield f"retrieval {retrieval}: item {event['rank']} is not what its event and experiments say"


def _method_text(copy: sqlite3.Connection) -> Iterator[str]:
    indexed = "SELECT id, name, summary FROM method_text"
    written = "SELECT id, name, summary FROM method"
    for left, right, word in ((written, indexed, "is not searched by"), (indexed, written, "is searched by")):
        for id, name, _ in copy.execute(f"{left} EXCEPT {right} ORDER BY 1"):
            yield f"method {id} {word} the words {name!r} and its summary"
