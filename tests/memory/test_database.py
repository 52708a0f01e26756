"""Opening: what is no memory file is refused and left as it was; migrations; full disks; folders nobody may write."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from looper.errors import StoreError
from looper.memory import database
from looper.memory.check import check
from looper.memory.database import APPLICATION_ID, open_database, probe_full_text_search, statements
from looper.memory.schema import MIGRATIONS, VERSION
from looper.memory.store import MemoryStore
from tests.memory import records_for_tests as one

LATER = (
    *MIGRATIONS,
    "ALTER TABLE paper ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue;';\n"
    "CREATE TRIGGER extra AFTER DELETE ON paper BEGIN SELECT 1; SELECT 2; END;",
)


def refused(path: Path, words: str, *, read_only: bool = False) -> None:
    before = path.read_bytes()
    names = neighbours(path)
    with pytest.raises(StoreError, match=words) as caught:
        MemoryStore.open(path, read_only=read_only)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert neighbours(path) == names


def neighbours(path: Path) -> list[str]:
    """Names in the file's folder, without those that SQLite puts beside a file that it reads."""
    return sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(("-wal", "-shm")))


def test_a_new_file_has_our_marks_and_settings(tmp_path: Path) -> None:
    with MemoryStore.open(tmp_path / "a b" / "c?#%.db") as store:
        pragmas = ("application_id", "user_version", "journal_mode", "synchronous", "foreign_keys")
        values = [store.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
        assert values == [APPLICATION_ID, VERSION, "wal", 1, 1]
        assert store.connection.execute("PRAGMA busy_timeout").fetchone()[0] >= 10_000
    assert (tmp_path / "a b" / "c?#%.db").exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_database_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "notes.db"
    path.write_text("my notes " * 100)
    refused(path, "is not a SQLite database", read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_the_database_of_another_application_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "places.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE place (name TEXT)")
        connection.execute("PRAGMA application_id = 7")
    connection.close()
    refused(path, "of another application .id 0x00000007", read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_file_is_refused_with_both_versions(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "m.db"
    open_database(path, migrations=LATER).close()
    refused(path, f"has version {VERSION + 1}, this looper reads version {VERSION}; update", read_only=read_only)


def test_an_older_file_is_brought_up_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    one.filled(path).close()
    with pytest.raises(StoreError, match=f"has version {VERSION}.*open it once for writing"):
        open_database(path, read_only=True, migrations=LATER)
    connection = open_database(path, migrations=LATER)
    assert connection.execute("SELECT id, colour FROM paper").fetchall() == [(one.PAPER.id, "blue;")]
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
    connection.close()


def test_a_migration_that_fails_leaves_the_file_at_its_version(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    one.filled(path).close()
    with pytest.raises(StoreError, match="no such table: lost"):
        open_database(path, migrations=(*LATER[:-1], LATER[-1] + "DELETE FROM lost;"))
    assert check(path) == []
    with MemoryStore.open(path) as store:
        assert store.papers() == [one.PAPER]


def test_several_openers_of_a_new_file_agree(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    code = (
        "import sys; from pathlib import Path; from looper.memory.store import MemoryStore\n"
        "sys.stdin.readline()\n"
        "with MemoryStore.open(Path(sys.argv[1])) as store: store.record('note', sys.argv[2], {})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(n)], stdin=subprocess.PIPE) for n in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 6
    assert check(path) == []
    with MemoryStore.open(path, read_only=True) as store:
        subjects = [row[0] for row in store.connection.execute("SELECT subject FROM event ORDER BY subject")]
    assert subjects == list("012345")


@pytest.mark.parametrize("where", [0, 4096 * 3])
def test_a_damaged_file_is_said(tmp_path: Path, where: int) -> None:
    path = tmp_path / "m.db"
    one.filled(path).close()
    data = bytearray(path.read_bytes())
    data[where + 100 : where + 4096] = b"\xff" * 3996
    path.write_bytes(data)
    assert check(path)
    if where == 0:
        refused(path, "malformed.*restore a copy")


def test_a_cut_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    one.filled(path).close()
    os.truncate(path, 4096 * 2)
    refused(path, "damaged; restore a copy")


def test_a_folder_or_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder; name a file"):
        MemoryStore.open(tmp_path)
    with pytest.raises(StoreError, match="there is no memory file"):
        MemoryStore.open(tmp_path / "m.db", read_only=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make folder"):
        MemoryStore.open(tmp_path / "file" / "sub" / "m.db")


def test_missing_full_text_search_is_said() -> None:
    connection = sqlite3.connect(":memory:")
    probe_full_text_search(connection)

    def deny(action: int, *details: str | None) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_CREATE_VTABLE else sqlite3.SQLITE_OK

    connection.set_authorizer(deny)
    with pytest.raises(StoreError, match="no full-text search"):
        probe_full_text_search(connection)
    connection.close()


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    MemoryStore.open(path).close()
    holder = open_database(path)
    holder.execute("BEGIN IMMEDIATE")
    done = threading.Event()

    def write() -> None:
        with MemoryStore.open(path) as store:
            store.record("note", "waited", {})
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not done.wait(0.2)
    holder.execute("COMMIT")
    thread.join()
    assert done.is_set()
    holder.close()


def test_a_writer_gives_up_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.db"
    MemoryStore.open(path).close()
    holder = open_database(path)
    holder.execute("BEGIN IMMEDIATE")
    with MemoryStore.open(path) as store:
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
        with pytest.raises(StoreError, match="locked; another process has been writing"):
            store.record("note", "x", {})
    holder.close()


def test_a_log_that_a_reader_kept_long_is_emptied_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOG_BYTES", 100_000)
    monkeypatch.setattr(database, "SHORTEN_SECONDS", 0.0)
    path = tmp_path / "m.db"
    log = tmp_path / "m.db-wal"
    with one.filled(path) as store:
        store.connection.longest = database.LOG_BYTES  # type: ignore[attr-defined]
        reader = open_database(path, read_only=True)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM event").fetchone() == (9,)
        for n in range(20):
            store.record("note", str(n), {"text": "x" * 20_000})
        assert log.stat().st_size > 3 * database.LOG_BYTES
        assert reader.execute("SELECT count(*) FROM event").fetchone() == (9,)
        reader.close()
        sizes = []
        for n in range(20):
            store.record("note", str(n), {"text": "x" * 20_000})
            sizes.append(log.stat().st_size)
        assert 0 in sizes
        assert sizes[-1] < 2 * database.LOG_BYTES
    assert check(path) == []


def test_statements_keep_triggers_whole() -> None:
    assert [s.strip() for s in statements(LATER[-1])] == [part.strip() for part in LATER[-1].split("\n")]


# ---------------------------------------------------------------- small and read-only disks


def in_namespace(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh", sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
    )


FILL = """
import sys
from pathlib import Path
from looper.errors import StoreError
from looper.memory.check import check
from looper.memory.store import MemoryStore
path = Path(sys.argv[1]) / "m.db"
written = 0
with MemoryStore.open(path) as store:
    try:
        while True:
            store.record("note", str(written), {"text": "x" * 5000})
            written += 1
    except StoreError as error:
        print(error)
with MemoryStore.open(path, read_only=True) as store:
    assert store.connection.execute("SELECT count(*) FROM event").fetchone() == (written,) and written > 10, written
assert check(path) == []
"""


def test_a_full_disk_is_said_and_what_was_written_is_kept(tmp_path: Path) -> None:
    (tmp_path / "fill.py").write_text(FILL)
    (tmp_path / "small").mkdir()
    done = in_namespace(f'mount -t tmpfs -o size=1m none "$2"; "$1" {tmp_path}/fill.py "$2"', tmp_path / "small")
    assert done.returncode == 0, done.stderr
    assert "free space there" in done.stdout or "disk's space" in done.stdout


READ = """
import sys
from pathlib import Path
from looper.errors import StoreError
from looper.memory.store import MemoryStore
path = Path(sys.argv[1]) / "m.db"
try:
    MemoryStore.open(path)
except StoreError as error:
    print(error)
with MemoryStore.open(path, read_only=True) as store:
    print(len(store.experiments()), "experiments")
    try:
        store.record("note", "x", {})
    except StoreError as error:
        print(error)
"""


def test_a_read_only_folder_is_said_and_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "read.py").write_text(READ)
    (tmp_path / "data").mkdir()
    one.filled(tmp_path / "data" / "m.db").close()
    script = f'mount --bind "$2" "$2"; mount -o remount,bind,ro "$2"; "$1" {tmp_path}/read.py "$2"'
    done = in_namespace(script, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    opened, read, written = done.stdout.splitlines()
    assert "cannot be written; give write rights" in opened
    assert read == "2 experiments"
    assert "readonly database; give write rights" in written
