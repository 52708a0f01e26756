"""How the memory's records become rows of its tables, and rows records again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from looper.errors import StoreError
from looper.memory.events import canonical
from looper.records import Record

Row = tuple[Any, ...]
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table and the fields that it keeps."""

    name: str
    """Of the table; where a record has a table of its own, also the kind of its events."""
    columns: tuple[str, ...]
    """Those that are fields of the record, in the order of the schema."""
    json: frozenset[str] = frozenset()
    """Columns that hold canonical JSON."""

    @property
    def selected(self) -> str:
        """Its columns as a SELECT names them."""
        return ", ".join(f"{self.name}.{column}" for column in self.columns)

    def insert(self, connection: sqlite3.Connection, values: Mapping[str, Any], **more: Any) -> None:
        """Insert the record's columns out of `values`, and `more` as it is."""
        self._write(connection, "INSERT", values, more)

    def replace(self, connection: sqlite3.Connection, values: Mapping[str, Any], **more: Any) -> None:
        """Insert, or replace every column of the row with the same key; what refers to it stays."""
        self._write(connection, "UPSERT", values, more)

    def values(self, row: Sequence[Any]) -> Values:
        """Return a selected row as the record's fields."""
        return {
            column: json.loads(value) if column in self.json else value
            for column, value in zip(self.columns, row, strict=True)
        }

    def _write(
        self, connection: sqlite3.Connection, how: str, values: Mapping[str, Any], more: Mapping[str, Any]
    ) -> None:
        row = {column: canonical(values[column]) if column in self.json else values[column] for column in self.columns}
        row |= more
        names = list(row)
        sql = f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        if how == "UPSERT":
            key = names[0]
            sql += f" ON CONFLICT ({key}) DO UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in names[1:])
        connection.execute(sql, list(row.values()))


PAPER = Table(
    name="paper",
    columns=("id", "origin", "title", "version", "url", "authors", "licence", "sha", "scope"),
    json=frozenset({"authors"}),
)
CHUNK = Table(name="chunk", columns=("locator", "title", "body", "identifiers"))
METHOD = Table(name="method", columns=("id", "name", "category", "summary"))
METHOD_SOURCE = Table(name="method_source", columns=("paper", "locator", "chunk"))
RETRIEVAL = Table(
    name="retrieval",
    columns=("id", "at", "goal", "query", "code_sha", "scope", "campaign", "policy", "seed", "tokens"),
    json=frozenset({"policy"}),
)
ITEM = Table(
    name="retrieval_item",
    columns=("rank", "method", "chunk", "score", "parts", "shown", "attempted"),
    json=frozenset({"parts"}),
)
EXPERIMENT = Table(
    name="experiment",
    columns=(
        *("id", "at", "campaign", "number", "parent", "retrieval", "diff", "ast_hash", "config", "scope", "seed"),
        *("budget_kind", "budget", "description"),
    ),
    json=frozenset({"config"}),
)
OUTCOME = Table(
    name="outcome",
    columns=(
        *("experiment", "status", "metric_name", "metric", "steps", "prompt_tokens", "completion_tokens", "cost"),
        *("wall", "memory", "log"),
    ),
)
VERDICT = Table(name="verdict", columns=("experiment", "baseline", "delta", "sigma", "n", "p_improve", "decision"))

KINDS = frozenset({"paper", "ingestion", "method", "retrieval", "experiment", "before", "outcome", "verdict"})
"""Kinds of event that the store writes itself."""
IN_EVENT: Mapping[str, Mapping[str, Any]] = {"verdict": {"decided": False, "freedom": None}}
"""Fields of a record, by its table, that only its event holds, and what they are where the event does not say.

So a field can be added without another schema: a file stays readable to older programs, and what has the default is
written as it was before the field was there.
"""


def plain(record: Record, what: str) -> Values:
    """Return a record as JSON-able values; raises StoreError if JSON or UTF-8 cannot hold it."""
    try:
        values: Values = record.model_dump(mode="json")
        for name, default in IN_EVENT.get(type(record).__name__.lower(), {}).items():
            if values[name] == default:
                del values[name]
        canonical(values).encode()
    except ValueError as error:
        raise StoreError(
            f"{what} cannot be stored: {error}; numbers have to be finite and text valid Unicode"
        ) from error
    return values
