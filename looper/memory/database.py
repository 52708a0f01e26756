"""Open the memory's SQLite file: recognise it, bring it to today's schema, and explain what goes wrong."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from looper.errors import StoreError
from looper.memory.schema import MIGRATIONS

T = TypeVar("T")

APPLICATION_ID = int.from_bytes(b"LpRF", "big")
"""Stands at byte 68 of every file of ours from its first commit on, so that another program's file is never touched."""
MAGIC = b"SQLite format 3\x00"
BUSY_SECONDS = 60.0
"""How long a writer waits for the others before it gives up."""
POLL_SECONDS = 0.004
"""How often a waiting writer asks, at least; who writes batch after batch leaves a longer gap."""
OLDEST_SQLITE = (3, 37, 0)
"""First release with STRICT tables; the trigram tokenizer came before."""

LOG_BYTES = 16 * 2**20
"""Length of the write-ahead log from which a writer empties it."""
SHORTEN_SECONDS = 0.2
"""How long that may wait for others."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_ADVICE = {
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; name another file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a copy or an export of it",
    sqlite3.SQLITE_FULL: "free space there; what was written before is kept",
    sqlite3.SQLITE_IOERR: "look at the disk's space and health; what was written before is kept",
    sqlite3.SQLITE_READONLY: "give write rights to the file and its folder, or open it with read_only=True",
    sqlite3.SQLITE_CANTOPEN: "check the path and the rights of the file and its folder",
    sqlite3.SQLITE_BUSY: f"another process has been writing for {BUSY_SECONDS:.0f} s; end it or try again",
    sqlite3.SQLITE_CONSTRAINT: "what is written contradicts what is there; `check` tells whether the file is whole",
    sqlite3.SQLITE_LOCKED: "another statement of this process holds the table; finish reading first",
}


def open_database(path: Path, *, read_only: bool = False, migrations: Sequence[str] = MIGRATIONS) -> sqlite3.Connection:
    """Return a connection to the file, made and brought to the newest version unless `read_only`.

    The journal is written ahead (WAL): readers never wait, a commit survives the end of its process, and the last
    commits may be lost only if the machine itself stops. Raises StoreError; a file that is refused is left as it was.
    """
    require_full_text_search()
    _recognise(path)
    if read_only:
        return _open_for_reading(path, len(migrations))
    _require_rights(path)
    with explained(path):
        connection = _attach(path, "mode=rwc")
        try:
            _refuse_newer(connection, path, len(migrations))
            _migrate(connection, path, migrations)
            patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def writing(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Hold the write lock for one transaction, which is committed whole or not at all."""
    with explained(path):
        _take_turn(connection)
        try:
            yield
            connection.execute("COMMIT")
            _shorten_log(connection)
        except BaseException as error:
            if connection.in_transaction:  # SQLite itself rolls back on a full disk
                connection.execute("ROLLBACK")
            if isinstance(error, OverflowError):
                raise StoreError(f"cannot write {path}: {error}; whole numbers have to fit 64 bits") from error
            raise


def _take_turn(connection: sqlite3.Connection) -> None:
    """Begin to write. SQLite itself asks every 100 ms in the end, too rarely to hit the gap between two batches."""
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")


def _shorten_log(connection: sqlite3.Connection) -> None:
    """Copy a log that grew long into the file and empty it.

    SQLite does so by itself only in a moment without writers and readers, which several busy writers never leave: the
    log of eight of them had grown to a gigabyte. Where a reader prevents it now, a later write tries again.
    """
    if not isinstance(connection, _Connection) or not connection.log.exists():
        return
    size = connection.log.stat().st_size
    if size >= connection.longest:
        busy = 1
        try:
            connection.execute(f"PRAGMA busy_timeout = {SHORTEN_SECONDS * 1000:.0f}")
            with contextlib.suppress(sqlite3.OperationalError):  # locked, or a full disk: the commit stands in the log
                busy = connection.execute("PRAGMA wal_checkpoint (TRUNCATE)").fetchone()[0]
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        connection.longest = size + LOG_BYTES if busy else LOG_BYTES


@contextmanager
def snapshot(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Read one state of the file across several statements, whatever others write meanwhile."""
    with explained(path):
        patiently(lambda: connection.execute("BEGIN"))
        try:
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreErrors that name the file, the cause and the next step."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # wrong use of the module: a closed connection, another thread
            raise
        advice = _ADVICE.get(code & 0xFF, "please report this")
        raise StoreError(f"memory file {path}: {error}; {advice}") from error


def patiently(action: Callable[[], T]) -> T:
    """Repeat an action while SQLite says busy at once, which it does where waiting could deadlock."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > until:
                raise
        time.sleep(random.uniform(0.2, 1.0) * POLL_SECONDS)


def statements(script: str) -> Iterator[str]:
    """Split a script, so that it can run inside a transaction (executescript commits first)."""
    pending = ""
    for piece in script.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \n;"):
                yield pending
            pending = ""


@lru_cache(maxsize=1)
def require_full_text_search() -> None:
    """Raise StoreError if this interpreter's SQLite lacks what the schema uses."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old for the memory; it needs {oldest} or newer")
    with sqlite3.connect(":memory:") as connection:
        probe_full_text_search(connection)
    connection.close()


def probe_full_text_search(connection: sqlite3.Connection) -> None:
    """Raise StoreError unless the connection can make FTS5 tables of words and of trigrams."""
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.probe USING fts5 (text, tokenize='trigram')")
        connection.execute("DROP TABLE temp.probe")
    except sqlite3.Error as error:
        raise StoreError(
            f"SQLite {sqlite3.sqlite_version} of this Python has no full-text search (FTS5: {error}); "
            "use a Python whose sqlite3 module has it, as those of python.org, conda and uv do"
        ) from error


# ---------------------------------------------------------------- opening


class _Connection(sqlite3.Connection):
    """A connection that knows its write-ahead log, and from which length on it next tries to empty it."""

    log: Path
    longest: int = LOG_BYTES


def _attach(path: Path, query: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{query}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, factory=_Connection)
    connection.log = path.absolute().with_name(path.name + "-wal")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _recognise(path: Path) -> None:
    """Raise StoreError for what is no file of ours, without opening it as a database.

    The first commit of a new file happens without WAL and writes the whole header at once, so the header tells.
    """
    if path.is_dir():
        raise StoreError(f"memory file {path} is a folder; name a file in it, e.g. {path / 'memory.db'}")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StoreError(f"memory file {path}: {error.strerror}; check its rights") from error
    if not header:
        return
    if not header.startswith(MAGIC):
        raise StoreError(f"memory file {path} is not a SQLite database; name another file")
    found = int.from_bytes(header[68:72], "big")
    if found != APPLICATION_ID:
        raise StoreError(
            f"memory file {path} is the SQLite database of another application (id {found:#010x}, "
            f"looper's is {APPLICATION_ID:#010x}); name another file"
        )


def _require_rights(path: Path) -> None:
    """Make the folder; raise StoreError if the file or its folder cannot be written (WAL needs both)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make folder {path.parent}: {error.strerror}; choose another place") from error
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise StoreError(
                f"memory file {path}: {place} cannot be written; give write rights to the file and its folder, "
                "or open it with read_only=True"
            )


def _open_for_reading(path: Path, newest: int) -> sqlite3.Connection:
    if not path.exists() or path.stat().st_size == 0:
        raise StoreError(f"there is no memory file {path}; open it for writing once, or name another")
    with explained(path):
        connection = _attach(path, "mode=ro")
        try:
            version = _version(connection)
        except sqlite3.OperationalError:
            # WAL wants to write beside the file even to read; where nobody can write there, nobody changes it either.
            connection.close()
            log = path.with_name(path.name + "-wal")
            if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
                raise
            connection = _attach(path, "mode=ro&immutable=1")
            version = _version(connection)
        except BaseException:
            connection.close()
            raise
        if version != newest:
            connection.close()
            _refuse(path, version, newest)
    return connection


def _version(connection: sqlite3.Connection) -> int:
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # reads the schema, so finds it damaged
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _refuse_newer(connection: sqlite3.Connection, path: Path, newest: int) -> None:
    version = patiently(lambda: _version(connection))
    if version > newest:
        _refuse(path, version, newest)


def _refuse(path: Path, version: int, newest: int) -> None:
    step = "update looper" if version > newest else "open it once for writing, which brings it up"
    raise StoreError(f"memory file {path} has version {version}, this looper reads version {newest}; {step}")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Run each missing migration in a transaction of its own; several processes may be at it."""
    while _version(connection) < len(migrations):
        with writing(connection, path):
            version = _version(connection)  # again: another process may have been faster
            if version == 0:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            if version < len(migrations):
                for statement in statements(migrations[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
