"""Nearest chunks by embedding: sqlite-vec where this interpreter can load it, numpy otherwise, with equal results."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Embedder = Callable[[Sequence[str]], NDArray[Any]]
"""Texts -> array (texts, dimensions)."""

BATCH = 4096
"""Vectors that are read or written at once."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """An embedding that the caller brings; none is built in, for each costs a download."""

    model: str
    """Name under which its vectors are stored; another name is another set of vectors."""
    embed: Embedder
    """Makes the vectors."""

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of some texts, of length 1 (0 where the embedder gave zeros or no numbers)."""
        vectors = np.asarray(self.embed(texts), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ValueError(
                f"the embedder {self.model!r} made an array of shape {vectors.shape} for {len(texts)} texts; "
                f"it has to return one row for each, shape ({len(texts)}, dimensions)"
            )
        vectors = np.nan_to_num(vectors, nan=0.0, posinf=0.0, neginf=0.0)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(lengths > 0.0, lengths, 1.0), np.float32)


def add_vectors(connection: sqlite3.Connection, vectors: Vectors) -> int:
    """Embed every chunk that has no vector of this model yet; return how many. Each batch is one transaction."""
    count = 0
    while True:
        rows = connection.execute(
            "SELECT c.id, c.title || char(10) || c.body FROM chunk AS c LEFT JOIN embedding AS e ON e.chunk = c.id "
            "WHERE e.model IS NOT ? ORDER BY c.id LIMIT ?",
            (vectors.model, BATCH),
        ).fetchall()
        if not rows:
            return count
        made = vectors.of([text for _, text in rows]).astype("<f4")
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO embedding (chunk, model, vector) VALUES (?, ?, ?)",
                [(row, vectors.model, vector.tobytes()) for (row, _), vector in zip(rows, made, strict=True)],
            )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        count += len(rows)


def nearest(
    connection: sqlite3.Connection, vectors: Vectors, text: str, limit: int, mask: NDArray[np.bool_] | None = None
) -> list[tuple[int, float]]:
    """Return the chunks nearest to a text with their cosines, best first; chunks without a vector are not found."""
    question = vectors.of([text])[0]
    if limit < 1 or not question.any():
        return []
    if load_extension(connection):
        return _by_extension(connection, vectors.model, question, limit, mask)
    return _by_numpy(connection, vectors.model, question, limit, mask)


def load_extension(connection: sqlite3.Connection) -> bool:
    """Load sqlite-vec into a connection; False where it is not installed or this interpreter loads no extensions."""
    if connection.execute("SELECT 1 FROM pragma_function_list WHERE name = 'vec_distance_cosine'").fetchone():
        return True
    if not hasattr(connection, "enable_load_extension"):
        return False
    try:
        package = importlib.import_module("sqlite_vec")
    except ImportError:
        return False
    try:
        connection.enable_load_extension(True)
        package.load(connection)
    except sqlite3.Error:
        return False
    finally:
        connection.enable_load_extension(False)
    return True


def _by_extension(
    connection: sqlite3.Connection,
    model: str,
    question: NDArray[np.float32],
    limit: int,
    mask: NDArray[np.bool_] | None,
) -> list[tuple[int, float]]:
    found = connection.execute(
        "SELECT chunk, 1.0 - vec_distance_cosine(vector, ?) AS cosine FROM embedding "
        "WHERE model = ? AND length(vector) = ? ORDER BY cosine DESC, chunk",
        (question.astype("<f4").tobytes(), model, 4 * len(question)),
    )
    return _first(((row, cosine) for row, cosine in found if cosine is not None), limit, mask)


def _by_numpy(
    connection: sqlite3.Connection,
    model: str,
    question: NDArray[np.float32],
    limit: int,
    mask: NDArray[np.bool_] | None,
) -> list[tuple[int, float]]:
    cursor = connection.execute(
        "SELECT chunk, vector FROM embedding WHERE model = ? AND length(vector) = ? ORDER BY chunk",
        (model, 4 * len(question)),
    )
    found: list[tuple[int, float]] = []
    while rows := cursor.fetchmany(BATCH):
        matrix = np.frombuffer(b"".join(blob for _, blob in rows), "<f4").reshape(len(rows), -1)  # (rows, dimensions)
        cosines: list[float] = (matrix @ question).tolist()
        given = np.abs(matrix).sum(axis=1).tolist()
        found += [(row, cosine) for (row, _), cosine, size in zip(rows, cosines, given, strict=True) if size]
        found = _first(iter(sorted(found, key=lambda pair: (-pair[1], pair[0]))), limit, mask)
    return found


def _first(pairs: Iterator[tuple[int, float]], limit: int, mask: NDArray[np.bool_] | None) -> list[tuple[int, float]]:
    allowed = (pair for pair in pairs if mask is None or mask[pair[0]])
    return [pair for pair, _ in zip(allowed, range(limit), strict=False)]
