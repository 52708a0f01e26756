"""Other searches over the same chunks: FTS5's own ranking, rank_bm25 and tantivy."""

import importlib.util
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from looper.memory.search.words import stemmer, words_of

Search = Callable[[str], list[int]]
LARGEST = 200_000
"""Chunks above which rank_bm25 is left out: it keeps every token of every chunk as a Python object."""


def naive(connection: sqlite3.Connection) -> Search:
    """bm25() of FTS5 over any of the words: the reference, which every overlap is counted against.

    Words of one stem are asked for once; FTS5 would count them as often as they are written.
    """

    def search(text: str) -> list[int]:
        stems = stemmer().stems(words_of(text))
        match = " OR ".join(f'"{word}"' for word in {stem: word for word, stem in stems.items()}.values())
        found = connection.execute(
            "SELECT rowid FROM chunk_text WHERE chunk_text MATCH ? "
            "ORDER BY round(bm25(chunk_text, 5.0, 1.0), 9), rowid LIMIT 10",
            (match,),
        )
        return [row for (row,) in found]

    return search


def missing(name: str) -> str:
    """Return why a peer cannot run; '' where it can."""
    return "" if importlib.util.find_spec(name) else f"{name} is not installed (pip install 'looper[peers]')"


def rank_bm25(connection: sqlite3.Connection) -> Search:
    """rank_bm25's BM25Okapi: plain words, no stems, no weight of titles."""
    import numpy as np
    from rank_bm25 import BM25Okapi

    model = BM25Okapi([words_of(body) for (body,) in connection.execute("SELECT body FROM chunk ORDER BY id")])

    def search(text: str) -> list[int]:
        scores = model.get_scores(words_of(text))
        return [int(row) + 1 for row in np.argpartition(-scores, 10)[:10]]

    return search


def tantivy(connection: sqlite3.Connection) -> Search:
    """tantivy on disk, English stems, title five times the body, any of the words."""
    import tantivy as library

    folder = tempfile.mkdtemp(prefix="looper-tantivy-")
    builder = library.SchemaBuilder()
    builder.add_integer_field("id", stored=True, indexed=False)
    for field in ("title", "body"):
        builder.add_text_field(field, stored=False, tokenizer_name="en_stem")
    index = library.Index(builder.build(), path=folder)
    writer = index.writer(heap_size=200_000_000, num_threads=1)
    for row, title, body in connection.execute("SELECT id, title, body FROM chunk"):
        writer.add_document(library.Document(id=row, title=title, body=body))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()

    def search(text: str) -> list[int]:
        query = index.parse_query(" ".join(words_of(text)), ["title", "body"], field_boosts={"title": 5.0})
        return [searcher.doc(address)["id"][0] for _, address in searcher.search(query, 10).hits]

    search.size = sum(path.stat().st_size for path in Path(folder).rglob("*"))  # type: ignore[attr-defined]
    return search
