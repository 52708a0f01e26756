"""Names in code, found by any part of them of three letters or more (a trigram index)."""

from __future__ import annotations

import re
import sqlite3

import numpy as np
from numpy.typing import NDArray

MOST = 16
"""Names of a question that are searched for, the longest."""

LONGEST = 200
"""Letters of a name; anything longer is data."""

TOKEN = re.compile(r"[\w./]+")
NAME = re.compile(r"\w[_./]+\w|[a-z0-9][A-Z]|^_+\w|\w_+$")


def names_of(text: str) -> list[str]:
    """Return the words of a text that look like names in code: with `_`, `.` or `/` inside, or in camelCase."""
    tokens = dict.fromkeys(token.strip("./") for token in TOKEN.findall(text))
    names = [token for token in tokens if 3 <= len(token) <= LONGEST and NAME.search(token)]
    return sorted(names, key=len, reverse=True)[:MOST]


def rank_names(
    connection: sqlite3.Connection, text: str, limit: int, mask: NDArray[np.bool_] | None = None
) -> list[tuple[int, float]]:
    """Return the chunks that hold any of a text's names, best first, with their BM25 (higher is better)."""
    names = names_of(text)
    if not names or limit < 1:
        return []
    # A filter that SQLite applied after LIMIT would lose hits, so with one all are read.
    found = connection.execute(
        "SELECT rowid, -bm25(chunk_identifiers) AS score FROM chunk_identifiers WHERE chunk_identifiers MATCH ? "
        "ORDER BY score DESC, rowid LIMIT ?",
        (" OR ".join(f'"{name}"' for name in names), limit if mask is None else -1),
    )
    return [(row, score) for row, score in found if mask is None or mask[row]][:limit]
