"""The check: nothing to say about a whole file; each kind of damage named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from looper.memory.check import check
from looper.memory.store import MemoryStore
from tests.memory import records_for_tests as one

DAMAGE = {
    "UPDATE paper SET licence = 'MIT'": "paper arxiv:2002.05202v1: licence is not what its event says",
    "UPDATE chunk SET body = 'other' WHERE id = 1": "its passages are not the 2 that its event digests",
    "UPDATE method SET summary = 'other'": "method swiglu: summary is not what its event says",
    "UPDATE method SET data = '{}'": "method swiglu: data are not what its event says",
    "DELETE FROM method_source": "method swiglu: sources are not what its event says",
    "DELETE FROM method_text": "method swiglu is not searched by the words 'SwiGLU'",
    "INSERT INTO method_text VALUES ('x', 'y', 'z')": "method x is searched by the words 'y'",
    "UPDATE retrieval SET goal = 'other'": "retrieval r1: goal is not what its event says",
    "UPDATE retrieval_item SET score = 9.0 WHERE rank = 1": "retrieval r1: item 1 is not what",
    "UPDATE retrieval_item SET attempted = 1": "retrieval r1: item 1 is not what",
    "DELETE FROM retrieval_item WHERE rank = 1": "retrieval r1 has 1 items, its event 2",
    "UPDATE experiment SET diff = ''": "experiment first:bbbbbbbbbb: diff is not what its event says",
    "UPDATE experiment SET config_hash = 'x' WHERE number = 1": "config_hash is not the digest of its config",
    "UPDATE experiment_method SET role = 'present'": "experiment first:bbbbbbbbbb: methods are not what its event says",
    "UPDATE experiment SET parent = 'gone' WHERE number = 1": "names parent gone, which is not there",
    "UPDATE outcome SET metric = NULL": "outcome first:aaaaaaaaaa: metric is not what its event says",
    "DELETE FROM outcome WHERE metric = 2.0": "outcome first:bbbbbbbbbb is missing, although event 7 wrote it",
    "UPDATE verdict SET event = 7": "was not written by its event 7, which is outcome",
    "UPDATE verdict SET baseline = 'gone'": "verdict first:bbbbbbbbbb names baseline gone",
    "UPDATE experiment SET config = 'no json'": "cannot be compared with event",
    "DELETE FROM experiment WHERE number = 1": "of outcome refers to a experiment that is not there",
    "DROP TRIGGER event_is_append_only_2": "trigger event_is_append_only_2 is missing",
    "INSERT INTO chunk_text (rowid, title, body) VALUES (7, 'a', 'b')": "search table chunk_text does not fit",
    "INSERT INTO chunk_identifiers (rowid, identifiers) VALUES (7, 'abc')": "search table chunk_identifiers does not",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.db"
    one.filled(path).close()
    return path


def test_a_whole_file_has_no_problems_also_while_it_is_written(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "m.db").write_bytes(whole.read_bytes())
    with MemoryStore.open(tmp_path / "m.db") as store:
        store.record("note", "x", {})
        store.connection.execute("BEGIN IMMEDIATE")
        assert check(tmp_path / "m.db") == []
        store.connection.execute("ROLLBACK")


@pytest.mark.parametrize("statement", DAMAGE)
def test_damage_is_named(whole: Path, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(whole.read_bytes())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    problems = check(path)
    assert any(DAMAGE[statement] in problem for problem in problems), problems
    assert path.read_bytes() == before


def test_a_superseded_verdict_put_back_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with one.filled(path) as store:
        store.add_verdict(one.VERDICT.model_copy(update={"delta": -0.25}))
        store.connection.execute("UPDATE verdict SET delta = 0.25, event = 8")
    assert check(path) == ["verdict first:bbbbbbbbbb stands at event 8, although event 10 superseded it"]


def test_a_file_that_cannot_be_opened_is_one_problem(tmp_path: Path) -> None:
    (problem,) = check(tmp_path / "m.db")
    assert "there is no memory file" in problem
