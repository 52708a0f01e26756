"""A corpus of any size from the standard library's sources, the same on every run of one Python version."""

import random
import re
import sqlite3
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from looper.memory.schema import MIGRATIONS, VERSION
from looper.memory.search.words import words_of

WORDS, PER_PAPER = 60, 100
Row = tuple[int, str, int, str, str, str, str]


def sources() -> list[list[str]]:
    """Return the words of each source file of the standard library, tests left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(p for p in root.rglob("*.py") if not {"site-packages", "test", "tests"} & set(p.parts))
    texts = (re.findall(r"[A-Za-z_][A-Za-z_0-9]+", path.read_text("utf-8", errors="ignore")) for path in paths)
    return [words for words in texts if len(words) > 200]


def rows(count: int) -> Iterator[Row]:
    """Make chunks: half of the words run on in one file, half are drawn from all files as often as they stand there."""
    stream, files = random.Random(0), sources()
    every = [word for words in files for word in words]
    for number in range(count):
        words = stream.choice(files)
        start = stream.randrange(len(words) - WORDS // 2)
        body = words[start : start + WORDS // 2] + stream.choices(every, k=WORDS // 2)
        names = [word for word in body if "_" in word.strip("_")][:4]
        yield (
            number + 1, f"p{number // PER_PAPER}", number % PER_PAPER, "", " ".join(body[:4]), " ".join(body),
            " ".join(names),
        )  # fmt: skip


def fill(path: Path, count: int) -> None:
    """Make a memory file that holds that many chunks, with the schema's own triggers."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + "".join(MIGRATIONS))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("BEGIN")
    papers = ((f"p{n}", f"paper {n}") for n in range(-(-count // PER_PAPER)))
    connection.executemany("INSERT INTO paper VALUES (?, 'file', ?, '', '', '[]', '', '', '', 1)", papers)
    connection.executemany("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", rows(count))
    connection.execute("COMMIT")
    connection.close()


def questions(connection: sqlite3.Connection, words: int, count: int, seed: int) -> list[str]:
    """Draw questions: so many distinct words of one chunk each, as frequent as they happen to be."""
    stream, found = random.Random(f"{seed} {words}"), list[str]()
    (highest,) = connection.execute("SELECT max(id) FROM chunk").fetchone()
    while len(found) < count:
        row = connection.execute("SELECT body FROM chunk WHERE id = ?", (stream.randrange(1, highest + 1),)).fetchone()
        distinct = list(dict.fromkeys(words_of(row[0])))
        if len(distinct) >= words:
            found.append(" ".join(stream.sample(distinct, words)))
    return found
