import random
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest

from looper.memory.rows import Chunk, Method, Origin, Paper
from looper.memory.search import Level, Searcher, search, search_methods
from looper.memory.search.identifiers import names_of
from looper.memory.store import MemoryStore
from tests.memory.search.corpus import add_chunk, add_paper, memory, naive, texts

NASTY = [
    "", " ", "\t\n", "\0", "a\0b", "\x00\x01\x02", '"', '""', '"""', "'", "''", "`", "*", "a*", "^a",
    "-", "-a", "--", "+", "c++", "a+b", "(", ")", "()", "((", "a)", "NEAR(", "NEAR(a b, 2)", "NEAR",
    "AND", "OR", "NOT", "AND OR NOT", "a AND", "OR a", "NOT a", "title:", "title:a", "body:",
    "body : a", "{title body} : a", "- title : a", "chunk_text", "rowid", "rank", "lr=0.04",
    "self-attn", "0.04", "1e-5", "\\", "a\\'b", "; DROP TABLE chunk; --", "%", "_", "___", "a_", "..",
    "./", "../../etc/passwd", "x.y", "🙂", "👩‍👩‍👧", "a🙂b", "\u200b", "\ufeff", "\ud800", "a\udfff_b",
    "é", "e\u0301", "ß", "ﬁ", "模型 训练", "हिन्दी", "𞤀𞤁", "²³", "a²b", "İ", "\U0010ffff", "ID",
    "camelCase", "null", "?", "?1", ":a", "@a", "$a",
]  # fmt: skip


@pytest.fixture(scope="module")
def small() -> sqlite3.Connection:
    return memory([*texts(200), ("title", "a body with c and near and self attn 0 04 lr", "x.y a_b camelCase ___")])


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_no_text_is_an_error(small: sqlite3.Connection, text: str) -> None:
    words = [part for part in text.split() if part.isalpha() and part.isascii()]
    for level in Level:
        found = search(small, text, level=level)
        assert len(found) <= 10
        assert all(a.score >= b.score for a, b in pairwise(found))
        if text == " ".join(words) and words:
            assert bool(naive(small, words, 1)) == any("words" in hit.parts for hit in found)
    assert len(search_methods(small, text)) == 0


@pytest.mark.parametrize("unit", ["word{} ", "a", "(", "x_{} ", "é{}\0"])
def test_a_megabyte_is_no_error(small: sqlite3.Connection, unit: str) -> None:
    text = "".join(unit.format(n) for n in range(1_000_000 // len(unit)))
    assert len(search(small, text + " lr", limit=3)) <= 3


def test_words_cannot_name_columns_or_operators(small: sqlite3.Connection) -> None:
    assert [hit.chunk for hit in search(small, "body:attn")] == [hit.chunk for hit in search(small, "body attn")]
    assert [hit.chunk for hit in search(small, "attn NOT near")] == [201]


def test_nothing_to_find(small: sqlite3.Connection) -> None:
    assert search(small, "absent words") == []
    assert search(small, "attn", limit=0) == []
    assert search(memory([]), "attn") == []


def filtered() -> sqlite3.Connection:
    connection = memory([], papers=0)
    stream, rows = random.Random(3), texts(600, seed=4)
    connection.execute("BEGIN")
    for place, (origin, scope) in enumerate(
        [("arxiv", ""), ("session", "gpt"), ("session", "gpt/h100"), ("file", "gpt/h100/d8"), ("arxiv", "bert")]
    ):
        add_paper(connection, f"p{place}", origin, scope)
    for place, (title, body, _) in enumerate(rows):
        add_chunk(connection, f"p{stream.choice([0, 0, 0, 0, 0, 1, 2, 3, 4])}", place, title, body, "get_item setItem")
    connection.execute("COMMIT")
    return connection


@pytest.mark.parametrize(
    ("filters", "papers"),
    [
        ({"scope": "gpt/h100"}, {"p0", "p1", "p2"}),
        ({"scope": ""}, {"p0"}),
        ({"scope": "nowhere"}, {"p0"}),
        ({"origins": [Origin.SESSION]}, {"p1", "p2"}),
        ({"origins": [Origin.SESSION, Origin.FILE], "scope": "gpt"}, {"p1"}),
        ({"papers": ["p3"]}, {"p3"}),
        ({"papers": ["absent"]}, set()),
        ({"origins": []}, set()),
    ],
)
def test_filters_lose_nothing_and_let_nothing_else_through(filters: dict[str, object], papers: set[str]) -> None:
    connection = filtered()
    of = dict(connection.execute("SELECT id, paper FROM chunk"))
    searcher = Searcher(connection)
    for words in (["luratos"], ["magene", "torokos", "semibu"]):
        expected = [row for row, _ in naive(connection, words, 10_000) if of[row] in papers]
        for level in Level:
            found = searcher.search(" ".join(words), limit=1000, level=level, **filters)  # type: ignore[arg-type]
            assert {hit.chunk for hit in found} == set(expected)
        best = searcher.search(" ".join(words), limit=5, level=Level.EXACT, **filters)  # type: ignore[arg-type]
        assert [hit.chunk for hit in best] == expected[:5]
    named = searcher.search("get_item", limit=1000, **filters)  # type: ignore[arg-type]
    assert {hit.chunk for hit in named} == {row for row, paper in of.items() if paper in papers}


def test_names_in_code_are_told_from_words() -> None:
    assert names_of("why does get_item fail in looper.memory/store.py, (maxSteps=3)? i.e. No, AND x_ 3.5") == [
        *("looper.memory/store.py", "get_item", "maxSteps", "i.e", "3.5")
    ]


def test_identifiers_are_found_by_their_parts_and_fused() -> None:
    connection = memory(
        [
            ("", "something about caches", "flash_attn_varlen_func"),
            ("", "flash attention explained, attn varlen", ""),
            ("", "unrelated words", "rotary_embedding"),
        ]
    )
    found = search(connection, "attn_varlen")
    assert {hit.chunk: sorted(hit.parts) for hit in found} == {1: ["identifiers"], 2: ["words"]}
    assert [hit.chunk for hit in search(connection, "ROTARY_emb")] == [3]
    assert search(connection, "ry_e", limit=1)[0].chunk == 3


def test_a_search_sees_what_others_wrote_and_what_its_own_transaction_did(tmp_path: Path) -> None:
    with MemoryStore.open(tmp_path / "memory.db") as writer, MemoryStore.open(tmp_path / "memory.db") as reader:
        paper = Paper(id="file:a", origin=Origin.FILE, title="a", sha="1")
        writer.add_paper(paper, [Chunk(locator="1", body="gradient clipping")])
        searcher = Searcher(reader.connection)
        assert len(searcher.search("clipped gradients")) == 1
        writer.add_paper(paper.model_copy(update={"sha": "2"}), [Chunk(locator="1", body="weight decay")])
        assert searcher.search("clipped gradients") == []
        assert len(searcher.search("decay")) == 1
        own = Searcher(writer.connection)
        assert len(own.search("decay")) == 1
        writer.connection.execute("BEGIN IMMEDIATE")
        row = add_chunk(writer.connection, "file:a", 7, "", "warm restarts")
        assert [hit.chunk for hit in own.search("restarts")] == [row]
        assert searcher.search("restarts") == []
        writer.connection.execute("ROLLBACK")
        assert own.search("restarts") == []


def test_methods_are_found_by_name_before_summary(tmp_path: Path) -> None:
    with MemoryStore.open(tmp_path / "memory.db") as store:
        store.add_methods(
            [
                Method(id="muon", name="Muon optimizer", category="optimizer", summary="orthogonal updates"),
                Method(id="adam", name="AdamW", category="optimizer", summary="the usual optimizer, unlike muon"),
                Method(id="gqa", name="Grouped queries", category="attention", summary="fewer key heads"),
            ]
        )
        assert [method for method, _ in search_methods(store.connection, "try MUON!")] == ["muon", "adam"]
        assert search_methods(store.connection, "muon", 0) == []
        assert search_methods(store.connection, "summary: gqa") == []
