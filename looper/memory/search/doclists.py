"""How often a frequent term stands in each row, read from the pages of the full-text index itself.

FTS5 tells fast which rows hold a term, but how often only by scoring row after row. Its pages say both, in format 4,
which the comments at the head of SQLite's fts5_index.c describe and every SQLite has written so far:

* A segment is a run of leaf pages. A page starts with two 16-bit numbers: where its first row number stands (0 for
  none), and where its text ends; behind that come the places of its terms, each but the first as a difference.
* A term's rows follow it, over as many pages as they need. A row is its number, less that of the row before where it is
  not the page's first; twice the bytes of its positions, one more if the row was deleted before; its positions.
* Positions are differences plus 2. A 1 and a column's number stand before those of each column but the first.

The rows of all pages are walked abreast, so the steps are as many as rows on one page, each a few operations of numpy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = 4
"""The format that is read; 5 is for tables with the option secure-delete."""

STRUCTURE = 10
"""The record that names the segments."""

ORIGINS = 0xFF
"""How a structure record goes on that also names each segment's transactions; only tables without texts have it."""

SEGMENT = 37
"""Bits of a page's id below its segment's number."""

HEAD = 4
"""Bytes before a page's text."""

PIECE = 512
"""Pages whose rows are walked at a time."""

MOST = 2**16 - 1
"""How often a term can stand in a column, as far as it is counted."""

LOOK = 16
"""Rows of every page between two looks whether all pages are at their end."""

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """The rows that hold a term, ascending, and how often it stands in the first column and in the second."""

    rows: NDArray[np.int64]
    titles: NDArray[np.uint16]
    bodies: NDArray[np.uint16]


@dataclass(frozen=True)
class _Lists:
    """A term's rows as bytes, those of all segments in one; row numbers are whole where a page's first row stands."""

    data: Bytes
    starts: Places
    """Where the first row of each page stands, ascending."""
    segments: Places
    """The segment of each of these, 0 for the oldest."""

    def pieces(self) -> Iterator[_Lists]:
        """Cut into runs of whole rows: what is worked on then fits the processor's caches."""
        for first in range(0, len(self.starts), PIECE):
            starts = self.starts[first : first + PIECE]
            after = self.starts[first + PIECE : first + PIECE + 1]
            data = self.data[starts[0] : after[0] if len(after) else None]
            yield _Lists(data, starts - starts[0], self.segments[first : first + PIECE])


def counts(connection: sqlite3.Connection, table: str, stem: str) -> Counts | None:
    """Return the counts of a term, without what this connection has not committed; None for another format."""
    structure = _structure(connection, table)
    if structure is None:
        return None
    lists = _lists(connection, table, structure, b"0" + stem.encode())
    rows, titles, bodies, gone, segments = (
        np.concatenate([empty, *parts])
        for empty, *parts in zip(_EMPTY, *(_counted(piece) for piece in lists.pieces()), strict=True)
    )
    found = Counts(rows, titles, bodies)
    if np.all(rows[1:] > rows[:-1]) and not gone.any():
        return found
    return _newest(found, gone, segments)


_EMPTY = tuple(np.zeros(0, kind) for kind in (np.int64, np.uint16, np.uint16, np.bool_, np.uint16))


def _counted(lists: _Lists) -> tuple[NDArray[Any], ...]:
    """Return the rows of a piece, both counts, which rows are gone, and each row's segment."""
    high = np.flatnonzero(lists.data >= 0x80)
    starts, firsts, runs = _walk(lists, _steps(lists.data, high))
    values, lengths = _numbers(lists.data, starts)
    sums = np.cumsum(values)
    rows = sums - np.repeat(sums[firsts] - values[firsts], runs)
    sizes, more = _numbers(lists.data, starts + lengths)
    sizes >>= 1
    titles, bodies = (
        np.minimum(count, MOST).astype(np.uint16)
        for count in _columns(lists.data, starts + lengths + more, sizes, high)
    )
    return rows, titles, bodies, sizes == 0, np.repeat(lists.segments, runs).astype(np.uint16)


def _newest(found: Counts, gone: NDArray[np.bool_], segments: NDArray[np.uint16]) -> Counts:
    """Keep of each row what its newest segment says; a row without positions is gone."""
    order = np.lexsort((segments, found.rows))
    last = np.append(found.rows[order][1:] != found.rows[order][:-1], True)
    kept = order[last & ~gone[order]]
    return Counts(found.rows[kept], found.titles[kept], found.bodies[kept])


# ---------------------------------------------------------------- pages


def _structure(connection: sqlite3.Connection, table: str) -> bytes | None:
    """Return the structure record without its cookie; None for another format."""
    (version,) = connection.execute(f"SELECT v FROM {table}_config WHERE k = 'version'").fetchone()
    (block,) = connection.execute(f"SELECT block FROM {table}_data WHERE id = ?", (STRUCTURE,)).fetchone()
    return None if version != FORMAT or block[4] == ORIGINS else block[4:]


def _lists(connection: sqlite3.Connection, table: str, structure: bytes, term: bytes) -> _Lists:
    parts, starts, segments, size = list[bytes](), list[int](), list[int](), 0
    for age, (segment, last) in enumerate(_segments(structure)):
        for text, start in _pages(connection, table, term, segment, last):
            if start >= 0:
                starts.append(size + start)
                segments.append(age)
            parts.append(text)
            size += len(text)
    data = np.frombuffer(b"".join(parts), np.uint8)
    return _Lists(data, np.array(starts, np.int64), np.array(segments, np.int64))


def _segments(structure: bytes) -> list[tuple[int, int]]:
    """Return number and last page of each segment, oldest first."""
    numbers = iter(read_numbers(structure))
    levels, _, _ = next(numbers), next(numbers), next(numbers)
    found = []
    for _ in range(levels):
        _, count = next(numbers), next(numbers)
        level = [(next(numbers), next(numbers), next(numbers)) for _ in range(count)]
        found.append([(segment, last) for segment, _, last in level])
    return [segment for level in reversed(found) for segment in level]


def _pages(
    connection: sqlite3.Connection, table: str, term: bytes, segment: int, last: int
) -> Iterator[tuple[bytes, int]]:
    """Yield what each page of a segment has of a term's rows, and where the first of them stands; -1 for nowhere."""
    row = connection.execute(
        f"SELECT pgno >> 1 FROM {table}_idx WHERE segid = ? AND term <= ? ORDER BY term DESC LIMIT 1", (segment, term)
    ).fetchone()
    if row is None:
        return
    pages = connection.execute(
        f"SELECT block FROM {table}_data WHERE id BETWEEN ? AND ? ORDER BY id",
        ((segment << SEGMENT) + row[0], (segment << SEGMENT) + last),
    )
    (page,) = next(pages)
    place = _find(page, term)
    if place is None:
        return
    start, end = place
    size = _size(page)
    yield page[start : end or size], 0 if start < size else -1
    if end:
        return
    for (page,) in pages:
        first, size = int.from_bytes(page[:2], "big"), _size(page)
        end = read_numbers(page[size : size + 3])[0] if len(page) > size else size
        yield page[HEAD:end], first - HEAD if 0 < first < end else -1
        if len(page) > size:
            return


def _size(page: bytes) -> int:
    return int.from_bytes(page[2:4], "big")


def _find(page: bytes, term: bytes) -> tuple[int, int] | None:
    """Return where the rows of a term begin and where they end, 0 for not on this page; None without the term."""
    places = list(accumulate(read_numbers(page[_size(page) :])))
    word = b""
    for number, place in enumerate(places):
        shared, place = _number(page, place) if number else (0, place)
        count, place = _number(page, place)
        word = word[:shared] + page[place : place + count]
        if word == term:
            return place + count, places[number + 1] if number + 1 < len(places) else 0
    return None


# ---------------------------------------------------------------- rows


def _walk(lists: _Lists, steps: NDArray[Any]) -> tuple[Places, Places, Places]:
    """Return where each row stands, which of these are the first of a page, and how many rows each page has."""
    ends = np.append(lists.starts[1:], len(lists.data))
    at, passed = lists.starts, [lists.starts]
    while (at < ends).any():
        for _ in range(LOOK):
            at = at + steps.take(at, mode="clip")
            passed.append(at)
    table = np.stack(passed, axis=1)  # (pages, steps)
    valid = table < ends[:, None]
    runs = np.count_nonzero(valid, axis=1)
    return table[valid], np.cumsum(runs) - runs, runs


def _steps(data: Bytes, high: Places) -> NDArray[np.unsignedinteger[Any] | np.signedinteger[Any]]:
    """Return how many bytes a row takes, for each place where one could stand, 0 behind the last."""
    steps: NDArray[Any] = np.zeros(len(data) + 1, np.uint8)
    np.right_shift(data[1:], 1, out=steps[: max(len(data) - 1, 0)])
    steps[:-1] += 2
    long = np.concatenate([high[high > 0] - 1, high])  # one of the two numbers takes more than a byte
    if len(long):
        _, lengths = _numbers(data, long)
        sizes, more = _numbers(data, long + lengths)
        sizes = np.minimum(lengths + more + (sizes >> 1), len(data))
        if sizes.max() >= 2**8:
            steps = steps.astype(np.uint16 if sizes.max() < 2**16 else np.int64)
        steps[long] = sizes
    return steps


def _columns(data: Bytes, starts: Places, sizes: Places, high: Places) -> tuple[Places, Places]:
    """Return how many positions of each column stand in runs of bytes; `high` says where a number goes on."""
    owners = np.searchsorted(starts, high, "right") - 1
    inside = (owners >= 0) & (high < starts[owners] + sizes[owners])
    bodies = sizes - np.bincount(owners[inside], minlength=len(starts))
    titles = np.zeros(len(starts), np.int64)
    live = np.flatnonzero((data.take(starts, mode="clip") != 1) & (sizes > 0))
    at, whole, marked = starts[live], np.ones(len(live), np.bool_), np.ones(len(starts), np.bool_)
    while len(live):
        byte = data.take(at, mode="clip")
        over = at >= starts[live] + sizes[live]
        marked[live[over]] = False
        go = ~(over | (whole & (byte == 1)))
        live, at, byte = live[go], at[go] + 1, byte[go]
        whole = byte < 0x80
        titles[live] += whole
    bodies -= titles + 2 * marked
    return titles, bodies


# ---------------------------------------------------------------- numbers


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read one of SQLite's variable-length integers (below 2^56) and return it with the place behind it."""
    value = 0
    while True:
        byte = data[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at


def read_numbers(block: bytes) -> list[int]:
    """Read SQLite's variable-length integers (those below 2^56)."""
    numbers, value = [], 0
    for byte in block:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(value)
            value = 0
    return numbers


def _numbers(data: Bytes, at: Places) -> tuple[Places, Places]:
    """Read such integers at many places and return them with their lengths."""
    byte = data.take(at, mode="clip")
    values, lengths = (byte & 0x7F).astype(np.int64), np.ones(len(at), np.int64)
    more = np.flatnonzero(byte >= 0x80)
    for length in range(1, 9):
        if not len(more):
            break
        byte = data.take(at[more] + length, mode="clip")
        values[more] = values[more] << 7 | byte & 0x7F
        lengths[more] += 1
        more = more[byte >= 0x80]
    return values, lengths
