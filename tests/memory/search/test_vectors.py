import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from looper.memory.search import Vectors, add_vectors, search
from looper.memory.search import vectors as vectors_module
from looper.memory.search.vectors import load_extension, nearest
from tests.memory.search.corpus import memory, texts


def letters(batch: Sequence[str]) -> NDArray[Any]:
    """How often each letter stands in a text."""
    return np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in batch], np.float64)


LETTERS = Vectors(model="letters", embed=letters)


@pytest.fixture
def connection() -> sqlite3.Connection:
    return memory([*texts(40), ("", "1234", "")])


def test_each_chunk_is_embedded_once_in_batches(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "BATCH", 7)
    assert add_vectors(connection, LETTERS) == 41
    assert add_vectors(connection, LETTERS) == 0
    other = Vectors(model="other", embed=letters)
    assert add_vectors(connection, other) == 41
    assert nearest(connection, LETTERS, "lur", 5) == []


def test_numpy_finds_the_greatest_cosines(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "BATCH", 7)
    monkeypatch.setattr(vectors_module, "load_extension", lambda connection: False)
    add_vectors(connection, LETTERS)
    rows = connection.execute("SELECT id, title || ' ' || body FROM chunk WHERE body <> '1234'").fetchall()
    question = letters(["quinato semene"])[0]
    made = letters([text for _, text in rows])
    cosines = made @ question / np.linalg.norm(made, axis=1) / np.linalg.norm(question)
    best = np.argsort(-cosines)[:5]
    found = nearest(connection, LETTERS, "quinato semene", 5)
    assert [row for row, _ in found] == [rows[place][0] for place in best]
    assert [cosine for _, cosine in found] == pytest.approx(cosines[best].tolist(), abs=1e-5)


def test_sqlite_vec_agrees_with_numpy(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    if not load_extension(connection):
        assert not hasattr(connection, "enable_load_extension"), "sqlite-vec belongs to the extra `test`"
        return  # an interpreter that loads no extensions has nothing to compare
    add_vectors(connection, LETTERS)
    mask = np.arange(42) % 3 > 0
    by_extension = [nearest(connection, LETTERS, "quinato semene", 50, choice) for choice in (None, mask)]
    monkeypatch.setattr(vectors_module, "load_extension", lambda connection: False)
    by_numpy = [nearest(connection, LETTERS, "quinato semene", 50, choice) for choice in (None, mask)]
    for one, other in zip(by_extension, by_numpy, strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-5)
        assert len(one) > 20


def test_nothing_without_a_direction_is_found(connection: sqlite3.Connection) -> None:
    add_vectors(connection, LETTERS)
    assert nearest(connection, LETTERS, "1234", 5) == []
    assert 41 not in {row for row, _ in nearest(connection, LETTERS, "luratos", 100)}


def test_vectors_join_the_words(connection: sqlite3.Connection) -> None:
    add_vectors(connection, LETTERS)
    found = search(connection, "zz 1234 quinquin", vectors=LETTERS)
    assert found[0].parts.keys() == {"words"} or found[0].parts.keys() == {"vectors"}
    assert {name for hit in found for name in hit.parts} == {"words", "vectors"}


def test_an_embedder_of_the_wrong_shape_is_named(connection: sqlite3.Connection) -> None:
    wrong = Vectors(model="flat", embed=lambda batch: np.zeros(len(batch)))
    with pytest.raises(ValueError, match=r"'flat' made an array of shape \(41,\) for 41 texts"):
        add_vectors(connection, wrong)
