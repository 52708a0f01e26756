"""Speed and exactness of the memory's search at each level of pruning, beside FTS5's own ranking and two libraries.

Usage: python experiments/memory_speed/run.py [--chunks 100000] [--questions 40] [--earlier 200] [--levels ...]
       [--file FILE]
"""

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from corpus import fill, questions
from peers import LARGEST, missing, naive, rank_bm25, tantivy

from looper.memory.search import Level, Searcher

LENGTHS = (1, 3, 6, 12)


class Timed:
    """Answers and their times: the clock on the wall and this thread's processor time, in milliseconds."""

    def __init__(self, search: Callable[[str], list[int]], asked: list[str]) -> None:
        self.answers, self.wall, self.cpu = list[list[int]](), list[float](), list[float]()
        for text in asked:
            wall, cpu = time.perf_counter(), time.thread_time()
            self.answers.append(search(text))
            self.wall.append((time.perf_counter() - wall) * 1e3)
            self.cpu.append((time.thread_time() - cpu) * 1e3)

    def line(self, length: int, name: str, reference: "Timed | None") -> str:
        times = []
        for values in (self.wall, self.cpu):
            ordered = sorted(values)
            times += [statistics.median(ordered), ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]]
        shown = " | ".join(f"{value:.1f}" for value in times)
        if reference is None:
            return f"| {length} | {name} | {shown} | |"
        both = zip(self.answers, reference.answers, strict=True)
        shares = [len(set(ours) & set(exact)) / len(exact) for ours, exact in both if exact]
        return f"| {length} | {name} | {shown} | {statistics.mean(shares):.3f} (least {min(shares):.1f}) |"


def open_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA mmap_size = 2000000000; PRAGMA cache_size = -200000;")
    return connection


def ours(search: Searcher, level: Level) -> Callable[[str], list[int]]:
    return lambda text: [hit.chunk for hit in search.search(text, level=level)]


def fresh(connection: sqlite3.Connection, level: Level) -> Callable[[str], list[int]]:
    return lambda text: [hit.chunk for hit in Searcher(connection).search(text, level=level)]


def others(connection: sqlite3.Connection, chunks: int) -> dict[str, Callable[[str], list[int]]]:
    found = {}
    for name, build in (("tantivy", tantivy), ("rank_bm25", rank_bm25)):
        reason = missing(name)
        if name == "rank_bm25" and chunks > LARGEST:
            reason = f"rank_bm25 is left out above {LARGEST} chunks for its memory"
        if reason:
            print(reason)
            continue
        start = time.perf_counter()
        found[name] = build(connection)
        size = f", {found[name].size / 1e6:.0f} MB" if hasattr(found[name], "size") else ""  # type: ignore[attr-defined]
        print(f"{name}: built in {time.perf_counter() - start:.1f} s{size}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=40, help="of each length")
    parser.add_argument("--earlier", type=int, default=200, help="other questions that a kept searcher answers first")
    parser.add_argument("--levels", type=Level, nargs="+", default=list(Level), help="of ours, all if left out")
    parser.add_argument("--file", type=Path, help="memory file to keep, or one that an earlier run kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "memory.db"
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, SQLite {sqlite3.sqlite_version}")
        if not path.exists():
            wall, cpu = time.perf_counter(), time.process_time()
            fill(path, arguments.chunks)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            size = path.stat().st_size / 1e6
            print(f"{arguments.chunks} chunks in {wall:.0f} s ({cpu:.0f} s of processor), {size:.0f} MB")
        connection = open_file(path)
        searches: dict[str, Callable[[str], list[int]]] = {}
        for level in arguments.levels:
            searches[f"{level.value}, fresh"] = fresh(connection, level)
            kept = Searcher(connection)
            for length in LENGTHS:
                for text in questions(connection, length, arguments.earlier // len(LENGTHS), seed=1):
                    kept.search(text, level=level)
            searches[f"{level.value}, kept"] = ours(kept, level)
        searches |= others(connection, arguments.chunks)
        print(
            "| words | search | p50 | p95 | p50 cpu | p95 cpu | overlap |\n| --- | --- | --- | --- | --- | --- | --- |"
        )
        for length in LENGTHS:
            asked = questions(connection, length, arguments.questions, seed=2)
            exact = Timed(naive(connection), asked)
            print(exact.line(length, "FTS5 bm25, any word", None), flush=True)
            for name, search in searches.items():
                print(Timed(search, asked).line(length, name, exact), flush=True)
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
