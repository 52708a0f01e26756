"""A question's words as the index knows them: stems, how many rows hold each, and whole words of a text counted."""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

READ = 1024
"""Distinct words of a question that are looked up; a longer question is read up to there."""

LONGEST = 256
"""Letters of a word that is looked up; anything longer is data, not a word."""

KEPT = 200_000
"""Stems that are remembered before the memory of them starts again."""

WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Term:
    """A stem that the index holds."""

    stem: str
    word: str
    """A word of the question with this stem; letters and digits only, so that quoting it is safe."""
    rows: int
    """Rows of the index that hold it."""

    @property
    def quoted(self) -> str:
        """The term as FTS5 reads it: a string, never an operator or a column."""
        return f'"{self.word}"'


class Stemmer:
    """Stems by SQLite's own tokenizer, so that they are the index's to the letter; safe to share between threads."""

    def __init__(self, tokenize: str = "porter unicode61") -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        self._table = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._table.executescript(
            f"CREATE VIRTUAL TABLE words USING fts5 (word, tokenize='{tokenize}');"
            "CREATE VIRTUAL TABLE stem USING fts5vocab (words, 'instance');"
        )

    def stems(self, words: Iterable[str]) -> dict[str, str]:
        """Return the stem of each word; '' for one that the tokenizer drops or splits."""
        words = list(words)
        with self._lock:
            new = list({word for word in words if word not in self._known})
            if len(self._known) + len(new) > KEPT:
                self._known.clear()
                new = list(set(words))
            if new:
                self._learn(new)
            return {word: self._known[word] for word in words}

    def _learn(self, new: list[str]) -> None:
        self._table.execute("BEGIN")
        self._table.executemany("INSERT INTO words (rowid, word) VALUES (?, ?)", enumerate(new))
        found: dict[int, list[str]] = {}
        for stem, row in self._table.execute("SELECT term, doc FROM stem"):
            found.setdefault(row, []).append(stem)
        self._table.execute("ROLLBACK")
        for row, word in enumerate(new):
            stems = found.get(row, [])
            self._known[word] = stems[0] if len(stems) == 1 else ""


@cache
def stemmer() -> Stemmer:
    """Return the stemmer that all searches of this process share."""
    return Stemmer()


def words_of(text: str) -> list[str]:
    """Return the words of any text, lower case, in order: letters and digits, nothing that is syntax to FTS5."""
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def terms_of(connection: sqlite3.Connection, text: str, known: dict[str, int] | None = None) -> list[Term]:
    """Return a question's distinct stems that the index holds, rarest first; `known` keeps counts between calls."""
    counts = {} if known is None else known
    words = [word for word in dict.fromkeys(words_of(text)) if len(word) <= LONGEST][:READ]
    named: dict[str, str] = {}
    for word, stem in stemmer().stems(words).items():
        if stem:
            named.setdefault(stem, word)
    for stem in named:
        if stem not in counts:
            row = connection.execute("SELECT doc FROM chunk_terms WHERE term = ?", (stem,)).fetchone()
            counts[stem] = row[0] if row else 0
    terms = [Term(stem, word, counts[stem]) for stem, word in named.items() if counts[stem]]
    return sorted(terms, key=lambda term: (term.rows, term.stem))


class Counter:
    """Counts a question's stems in texts without reading each of their words.

    Porter's algorithm changes the ends of words only: a stem of three letters or more has the first two letters of its
    words, a shorter one the first. Words that begin otherwise are passed over; a text with letters beyond ASCII is read
    in full, for the tokenizer may fold them.
    """

    def __init__(self, stems: Iterable[str]) -> None:
        self._stems = {stem: place for place, stem in enumerate(stems)}
        starts = sorted({stem[:2] if len(stem) > 2 else stem[:1] for stem in self._stems})
        self._begin = re.compile(rf"\b(?:{'|'.join(map(re.escape, starts))})\w*")

    def counts(self, texts: list[str]) -> list[list[int]]:
        """Return for each text how often each stem stands in it, in the order of the stems."""
        found = [
            self._begin.findall(text.lower().replace("_", " ")) if text.isascii() else words_of(text) for text in texts
        ]
        stems = stemmer().stems({word for words in found for word in words})
        places = {word: self._stems[stem] for word, stem in stems.items() if stem in self._stems}
        counts = [[0] * len(self._stems) for _ in texts]
        for row, words in zip(counts, found, strict=True):
            for word in words:
                if word in places:
                    row[places[word]] += 1
        return counts
