import random
import sqlite3
from collections.abc import Iterator

import numpy as np
import pytest

from looper.memory.search import doclists, postings
from looper.memory.search.doclists import counts
from looper.memory.search.postings import TextIndex
from looper.memory.search.text import Level, rank
from looper.memory.search.words import Term, terms_of
from tests.memory.search.corpus import STEMS, add_chunk, memory, naive, texts

Row = tuple[int, int, int]


def told(connection: sqlite3.Connection, stem: str) -> list[Row]:
    """What FTS5 itself says, place by place."""
    connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.places USING fts5vocab (main, chunk_text, 'instance')")
    return connection.execute(
        "SELECT doc, sum(col = 'title'), sum(col = 'body') FROM places WHERE term = ? GROUP BY doc ORDER BY doc",
        (stem,),
    ).fetchall()


def read(connection: sqlite3.Connection, stem: str) -> list[Row]:
    found = counts(connection, "chunk_text", stem)
    assert found is not None
    return list(zip(found.rows.tolist(), found.titles.tolist(), found.bodies.tolist(), strict=True))


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    made = memory(texts(3000))
    yield made
    made.close()


def test_counts_are_those_of_fts5(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doclists, "PIECE", 3)
    assert len(told(connection, STEMS[0])) > 1000
    for stem in [*STEMS, *(f"{stem}s" for stem in STEMS[:5])]:
        stems = [term.stem for term in terms_of(connection, stem)]
        for known in stems:
            assert read(connection, known) == told(connection, known)
    assert read(connection, "missing") == []


def test_counts_span_segments_and_leave_out_what_was_deleted() -> None:
    connection, stream = memory(texts(400)), random.Random(1)
    for step in range(40):
        gone = stream.sample(range(1, 401), 9)
        connection.execute("BEGIN")
        connection.executemany("DELETE FROM chunk WHERE id = ?", [(row,) for row in gone])
        for row, (title, body, _) in zip(gone, texts(6, seed=step), strict=False):  # three stay away
            data = (row, 1000 * (step + 1) + row, title, f"{body} {STEMS[0]}")
            connection.execute("INSERT INTO chunk VALUES (?, 'p0', ?, '', ?, ?, '')", data)
        connection.execute("COMMIT")
    structure = connection.execute("SELECT block FROM chunk_text_data WHERE id = 10").fetchone()[0]
    assert len(doclists._segments(structure[4:])) > 1
    for stem in STEMS[:8]:
        assert read(connection, stem) == told(connection, stem)
    connection.execute("INSERT INTO chunk_text (chunk_text) VALUES ('optimize')")
    assert read(connection, STEMS[0]) == told(connection, STEMS[0])


def test_numbers_of_several_bytes_are_read() -> None:
    connection, stream = memory([("beta", "", "")]), random.Random(2)
    row = 1
    for size in (1, 200, 300, 20_000, 3, 90_000, 1, 1):
        row += stream.choice([1, 127, 128, 20_000, 3_000_000])
        words = [stream.choice(["alpha", "beta", *(["gamma"] * 300)]) for _ in range(size)]
        titles = " ".join(["gamma"] * stream.randrange(200) + ["alpha"] * stream.randrange(200))
        data = (row, row, titles, " ".join([*words, "alpha"]))
        connection.execute("INSERT INTO chunk VALUES (?, 'p0', ?, '', ?, ?, '')", data)
    connection.execute("INSERT INTO chunk VALUES (?, 'p0', 1, '', 'alpha', 'beta', '')", (2**40,))
    for stem in ("alpha", "beta", "gamma"):
        expected = [
            (row, min(title, doclists.MOST), min(body, doclists.MOST)) for row, title, body in told(connection, stem)
        ]
        assert read(connection, stem) == expected


def test_another_format_is_not_read(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE chunk_text_config SET v = 5 WHERE k = 'version'")
    assert counts(connection, "chunk_text", STEMS[0]) is None
    connection.execute("UPDATE chunk_text_config SET v = 4 WHERE k = 'version'")


def index_of(connection: sqlite3.Connection) -> TextIndex:
    index = TextIndex(connection)
    index.refresh(writing=connection.in_transaction)
    return index


def test_lists_from_pages_are_those_from_fts5(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    (term,) = terms_of(connection, STEMS[0])
    listed = index_of(connection).holding(term)
    monkeypatch.setattr(postings, "FREQUENT", 1)
    monkeypatch.setattr(TextIndex, "_rows", None)  # FTS5 is not asked
    index = index_of(connection)
    roomy = index.holding(term)
    index = index_of(connection)
    monkeypatch.setattr(postings, "CACHE", 2 * index.holding(terms_of(connection, STEMS[1])[0]).size)
    scarce = index.holding(term)
    assert (roomy.hits is None, scarce.hits is None) == (False, True)
    for counted in (roomy, scarce, index.counted(term)):
        assert counted is not None
        assert np.array_equal(listed.rows, counted.rows)
        assert np.array_equal(listed.titled, counted.titled)


def test_pages_that_disagree_with_the_count_of_fts5_are_not_used(connection: sqlite3.Connection) -> None:
    (term,) = terms_of(connection, STEMS[0])
    index = index_of(connection)
    assert index.counted(Term(term.stem, term.word, term.rows + 1)) is None
    assert index.counted(term) is not None


@pytest.mark.parametrize("level", [Level.CAREFUL, Level.BALANCED, Level.FAST])
def test_a_frequent_word_of_texts_of_any_length(level: Level) -> None:
    stream = random.Random(4)
    rows = []
    for _ in range(4000):
        words = stream.choices(STEMS[:9], k=int(stream.lognormvariate(3, 1)) + 1)
        rows.append((" ".join(stream.sample(STEMS, 3)), " ".join(words), ""))
    connection, shares = memory(rows), []
    for word in STEMS[:9]:
        (term,) = terms_of(connection, word)
        assert term.rows > 2000
        found = rank(index_of(connection), [term], 10, level)
        expected = dict(naive(connection, [word], 4000))
        assert [score for _, score in found] == pytest.approx([expected[row] for row, _ in found], abs=2e-9)
        shares.append(len({row for row, _ in found} & set(list(expected)[:10])))
    assert sum(shares) / len(shares) >= 9


def test_inside_a_transaction_its_own_rows_count(connection: sqlite3.Connection) -> None:
    (term,) = terms_of(connection, STEMS[0])
    assert term.rows > 1000
    connection.execute("BEGIN")
    row = add_chunk(connection, "p0", 9999, STEMS[0], STEMS[0])
    index = index_of(connection)
    assert row in index.holding(terms_of(connection, STEMS[0])[0]).rows
    assert index.counted(terms_of(connection, STEMS[0])[0]) is None
    connection.execute("ROLLBACK")
    index.refresh()
    assert row not in index.holding(term).rows
    assert index.counted(term) is not None
