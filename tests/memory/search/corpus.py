"""A small corpus with frequent, middling and rare words, in a real memory file."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable

from looper.memory.schema import MIGRATIONS

STEMS = [a + b for a in ("lur", "mag", "nor", "pel", "quin", "ras", "sem", "tor") for b in ("ato", "ene", "ibu", "oko")]
ENDINGS = ("", "", "s", "ing", "ed", "ation")


def memory(rows: Iterable[tuple[str, str, str]], papers: int = 1) -> sqlite3.Connection:
    """Return a memory that holds chunks of title, body and identifiers, dealt to papers in turn."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript("".join(MIGRATIONS))
    connection.execute("BEGIN")
    for paper in range(papers):
        add_paper(connection, f"p{paper}")
    for place, (title, body, identifiers) in enumerate(rows):
        add_chunk(connection, f"p{place % papers}", place, title, body, identifiers)
    connection.execute("COMMIT")
    return connection


def add_paper(connection: sqlite3.Connection, name: str, origin: str = "file", scope: str = "") -> None:
    data = (name, origin, name, scope)
    connection.execute("INSERT INTO paper VALUES (?, ?, ?, '', '', '[]', '', '', ?, 1)", data)


def add_chunk(
    connection: sqlite3.Connection, paper: str, place: int, title: str, body: str, identifiers: str = ""
) -> int:
    row = connection.execute(
        "INSERT INTO chunk (paper, position, locator, title, body, identifiers) VALUES (?, ?, '', ?, ?, ?)",
        (paper, place, title, body, identifiers),
    ).lastrowid
    assert row is not None
    return row


def texts(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """Return chunks of uneven length; the n-th word is drawn about 1 / n as often as the first."""
    stream = random.Random(seed)
    weights = [1.0 / (place + 1) for place in range(len(STEMS))]
    found = []
    for _ in range(count):
        words = stream.choices(STEMS, weights, k=stream.randrange(5, 60))
        words = [word + stream.choice(ENDINGS) for word in words]
        found.append((" ".join(words[:2]), " ".join(words), ""))
    return found


def naive(connection: sqlite3.Connection, words: Iterable[str], limit: int) -> list[tuple[int, float]]:
    """Return what FTS5's own bm25() says over any of the words."""
    found = connection.execute(
        "SELECT rowid, round(-bm25(chunk_text, 5.0, 1.0), 9) AS score FROM chunk_text WHERE chunk_text MATCH ? "
        "ORDER BY score DESC, rowid LIMIT ?",
        (" OR ".join(f'"{word}"' for word in words), limit),
    )
    return [(row, score) for row, score in found]
