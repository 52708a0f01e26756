"""The memory's log: every write as an event that can only be added, each bound to the one before by a hash."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from looper.errors import StoreError
from looper.records import Record

COLUMNS = "id, at, kind, subject, data, supersedes, previous, hash"


class Event(Record):
    """One entry of the log."""

    id: int
    at: float
    """Seconds since the epoch when it was written."""
    kind: str
    """`paper`, `method`, `retrieval`, `experiment`, `outcome`, `verdict`, or a word of the writer's own."""
    subject: str
    """Id of what it is about."""
    data: Any
    supersedes: int | None
    """Event that this one replaces."""
    previous: str
    """Hash of the event before; '' for the first."""
    hash: str


class Head(Record):
    """State of the whole log in one line: note it down elsewhere, and a log cut short will show."""

    events: int
    hash: str


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def chained(previous: str, at: float, kind: str, subject: str, data: str, supersedes: int | None) -> str:
    """Return SHA-256 of the previous hash and the event; `data` is canonical JSON."""
    text = canonical({"at": at, "kind": kind, "subject": subject, "data": data, "supersedes": supersedes})
    return hashlib.sha256((previous + text).encode()).hexdigest()


def append(connection: sqlite3.Connection, kind: str, subject: str, data: str, *, supersedes: int | None = None) -> int:
    """Add an event within the caller's write transaction; returns its id."""
    last = connection.execute("SELECT id, hash FROM event ORDER BY id DESC LIMIT 1").fetchone()
    number, previous = (last[0] + 1, last[1]) if last else (1, "")
    at = time.time()
    digest = chained(previous, at, kind, subject, data, supersedes)
    connection.execute(
        f"INSERT INTO event ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (number, at, kind, subject, data, supersedes, previous, digest),
    )
    return int(number)


def latest(connection: sqlite3.Connection, kind: str, subject: str) -> int | None:
    """Return the last event of a kind about a subject, the one that a new event supersedes."""
    row = connection.execute("SELECT max(id) FROM event WHERE subject = ? AND kind = ?", (subject, kind)).fetchone()
    number: int | None = row[0]
    return number


def read(connection: sqlite3.Connection, *, kind: str = "", subject: str = "", after: int = 0) -> Iterator[Event]:
    """Yield events in order; '' holds any."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM event WHERE id > ?1 AND (?2 = '' OR kind = ?2) AND (?3 = '' OR subject = ?3) "
        "ORDER BY id",
        (after, kind, subject),
    )
    for number, at, word, about, data, supersedes, previous, digest in rows:
        try:
            value = json.loads(data)
        except json.JSONDecodeError as error:
            raise StoreError(f"event {number} is not JSON ({error}); look at `check`") from error
        yield Event(
            id=number,
            at=at,
            kind=word,
            subject=about,
            data=value,
            supersedes=supersedes,
            previous=previous,
            hash=digest,
        )


def head(connection: sqlite3.Connection) -> Head:
    """Return the number of events and the last hash, which binds them all."""
    row = connection.execute("SELECT id, hash FROM event ORDER BY id DESC LIMIT 1").fetchone()
    return Head(events=row[0], hash=row[1]) if row else Head(events=0, hash="")


def verify(connection: sqlite3.Connection, expected: Head | None = None) -> list[str]:
    """Return what is wrong with the chain: changed, missing or added events; empty if nothing is.

    Events cut from the end leave a chain that is whole; an `expected` head, noted earlier, shows that too.
    """
    problems: list[str] = []
    previous, number = "", 0
    noted = expected is None or expected.events == 0
    for row in connection.execute(f"SELECT {COLUMNS} FROM event ORDER BY id"):
        identity, at, kind, subject, data, supersedes, before, digest = row
        if identity != number + 1:
            problems.append(f"events {number + 1} to {identity - 1} are missing")
        if before != previous:
            problems.append(f"event {identity} does not follow event {number}: its previous hash is another")
        if chained(before, at, kind, subject, data, supersedes) != digest:
            problems.append(f"event {identity} ({kind} {subject}) was changed: its hash does not fit what it says")
        if expected is not None and identity == expected.events:
            noted = digest == expected.hash
        previous, number = digest, identity
    if expected is not None and not noted:
        problems.append(f"event {expected.events} is not the one noted: its hash was {expected.hash}")
    return problems
