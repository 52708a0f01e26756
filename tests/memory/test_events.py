"""The log: each event bound to the one before, so that a change, a gap or a cut shows."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from looper.memory import events
from looper.memory.check import check
from looper.memory.events import Head
from looper.memory.store import MemoryStore
from tests.memory import records_for_tests as one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    one.filled(tmp_path / "m.db").close()
    return tmp_path / "m.db"


def tampered(path: Path, *statements: str) -> list[str]:
    """Change a file behind the program's back, as somebody with the `sqlite3` shell can, and check it."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE name LIKE 'event_is%'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()
    return check(path)


def test_the_hash_is_what_the_documentation_says(path: Path) -> None:
    with MemoryStore.open(path, read_only=True) as store:
        rows = store.connection.execute("SELECT at, kind, subject, data, supersedes, previous, hash FROM event")
        previous = ""
        for at, kind, subject, data, supersedes, before, digest in rows:
            text = events.canonical(dict(at=at, kind=kind, subject=subject, data=data, supersedes=supersedes))
            assert before == previous
            previous = hashlib.sha256((previous + text).encode()).hexdigest()
            assert digest == previous


def test_events_can_be_read_by_kind_and_subject(path: Path) -> None:
    with MemoryStore.open(path, read_only=True) as store:
        everything = list(events.read(store.connection))
        assert [event.id for event in everything] == list(range(1, 10))
        (note,) = events.read(store.connection, kind="note")
        assert (note.subject, note.data) == ("first", {"text": "a free event"})
        about = [event.kind for event in events.read(store.connection, subject=one.EXPERIMENT.id, after=6)]
        assert about == ["outcome", "verdict"]
        assert events.head(store.connection) == Head(events=9, hash=everything[-1].hash)


@pytest.mark.parametrize("statement", ["UPDATE event SET data = '{}' WHERE id = 2", "DELETE FROM event WHERE id = 9"])
def test_the_file_itself_refuses_to_change_events(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def test_a_changed_event_is_found(path: Path) -> None:
    problems = tampered(path, "UPDATE event SET data = replace(data, '2.0', '1.0') WHERE kind = 'outcome'")
    assert any("event 7 (outcome first:bbbbbbbbbb) was changed" in problem for problem in problems)
    assert any("metric is not what its event says" in problem for problem in problems)


def test_a_changed_event_with_a_hash_made_to_fit_is_found(path: Path) -> None:
    with MemoryStore.open(path, read_only=True) as store:
        event = list(events.read(store.connection))[6]
    data = events.canonical(event.data).replace("2.0", "1.0")
    digest = events.chained(event.previous, event.at, event.kind, event.subject, data, None)
    problems = tampered(
        path,
        f"UPDATE event SET data = '{data}', hash = '{digest}' WHERE id = 7",
        "UPDATE outcome SET metric = 1.0 WHERE metric = 2.0",
    )
    assert problems == ["event 8 does not follow event 7: its previous hash is another"]


def test_a_missing_event_is_found(path: Path) -> None:
    assert "events 3 to 3 are missing" in tampered(path, "PRAGMA foreign_keys = OFF", "DELETE FROM event WHERE id = 3")


def test_a_log_cut_at_its_end_needs_the_noted_head(path: Path) -> None:
    with MemoryStore.open(path, read_only=True) as store:
        noted = events.head(store.connection)
    assert check(path, noted) == []
    assert tampered(path, "DELETE FROM event WHERE id = 9") == []
    assert check(path, noted) == [f"event 9 is not the one noted: its hash was {noted.hash}"]
