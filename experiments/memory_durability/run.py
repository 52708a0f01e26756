"""Writers of one memory file are killed at random moments: is every acknowledged event there, and the file whole?

Each writer adds experiments with their outcomes and prints the number of an event as soon as the store says that it
is written. A writer that was killed is started again and goes on after the last number that it printed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from looper.memory.check import check
from looper.memory.export import export, restore
from looper.memory.rows import Experiment, Outcome, Status
from looper.memory.store import MemoryStore


def write(path: Path, writer: int, first: int, events: int) -> None:
    """Write a writer's events from `first` on: even ones are experiments, each odd one the outcome of the one before.

    An event whose acknowledgement was lost is written again, which the store takes for what it is.
    """
    with MemoryStore.open(path) as store:
        for n in range(first, events):
            id = f"{writer}:{n // 2}"
            if n % 2 == 0:
                store.add_experiment(
                    Experiment(id=id, at=float(n), campaign=str(writer), number=n // 2, diff="+x" * 50)
                )
            else:
                store.add_outcome(Outcome(experiment=id, status=Status.OK, metric=2.0 - n / 1e6))
            print(n, flush=True)


@dataclass
class Writer:
    """One writer: a process that is started again whenever it was killed."""

    path: Path
    number: int
    events: int
    acknowledged: int = 0
    """Events that it said were written; they are 0 to this number, exclusive."""
    kills: int = 0
    errors: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def work(self) -> None:
        """Run until every event is acknowledged or a process ends by itself with an error."""
        while self.acknowledged < self.events and not self.errors:
            command = [sys.executable, __file__, "--write", str(self.path), str(self.number), str(self.acknowledged)]
            command += ["--events", str(self.events)]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            said, trouble = self.process.stdout, self.process.stderr
            assert said is not None and trouble is not None
            with said, trouble:
                for line in said:
                    if line.endswith("\n"):
                        self.acknowledged = int(line) + 1
                words = trouble.read()
            code = self.process.wait()
            if code == -signal.SIGKILL:
                self.kills += 1
            elif code:
                self.errors.append(words)


def torture(path: Path, *, writers: int, events: int, kills: int, pause: float, seed: int) -> tuple[list[Writer], int]:
    """Run the writers to their end; up to `kills` times, one of them at random gets SIGKILL while it writes.

    Returns them, and the longest write-ahead log that was seen, in bytes.
    """
    crew = [Writer(path, n, events) for n in range(writers)]
    threads = [threading.Thread(target=writer.work) for writer in crew]
    for thread in threads:
        thread.start()
    draw = random.Random(seed)
    sent = longest = 0
    log = path.with_name(path.name + "-wal")
    while any(thread.is_alive() for thread in threads):
        time.sleep(draw.uniform(0.0, 2.0 * pause))
        with contextlib.suppress(FileNotFoundError):
            longest = max(longest, log.stat().st_size)
        writing = [w for w in crew if w.process is not None and 0 < w.acknowledged < events]
        if sent < kills and writing:
            if (process := draw.choice(writing).process) is not None:
                process.kill()
                sent += 1
    for thread in threads:
        thread.join()
    return crew, longest


def lost(path: Path, crew: list[Writer]) -> list[str]:
    """Return acknowledged events that the file does not hold, and events that it holds twice."""
    missing = []
    with MemoryStore.open(path, read_only=True) as store:
        for writer in crew:
            for kind, wanted in (("experiment", (writer.acknowledged + 1) // 2), ("outcome", writer.acknowledged // 2)):
                found = store.connection.execute(
                    "SELECT subject, count(*) FROM event WHERE kind = ? AND subject LIKE ? GROUP BY subject",
                    (kind, f"{writer.number}:%"),
                )
                counts: dict[str, int] = dict(found.fetchall())
                missing += [
                    f"{kind} {writer.number}:{n}: {counts.get(f'{writer.number}:{n}', 0)} events"
                    for n in range(wanted)
                    if counts.get(f"{writer.number}:{n}", 0) != 1
                ]
    return missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--events", type=int, default=5000, help="of each writer")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", nargs=3, metavar=("FILE", "WRITER", "FIRST"), help="be a writer")
    told = parser.parse_args()
    if told.write:
        write(Path(told.write[0]), int(told.write[1]), int(told.write[2]), told.events)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db"
        start = time.monotonic()
        crew, longest = torture(
            path, writers=told.writers, events=told.events, kills=told.kills, pause=told.pause, seed=told.seed
        )
        seconds = time.monotonic() - start
        errors = [error for writer in crew for error in writer.errors]
        missing, problems = lost(path, crew), check(path)
        with (Path(folder) / "lines").open("w+", encoding="utf-8") as lines, MemoryStore.open(path) as store:
            export(store, lines)
            lines.seek(0)
            restored = restore(lines, Path(folder) / "again.db")
        acknowledged = sum(writer.acknowledged for writer in crew)
        rows = [
            ("writers x events", f"{told.writers} x {told.events}"),
            ("killed with SIGKILL", f"{sum(writer.kills for writer in crew)} times"),
            ("events acknowledged", f"{acknowledged}"),
            ("acknowledged events missing or doubled", f"{len(missing)}"),
            ("writers that gave up", f"{len(errors)}"),
            ("problems that `check` finds", f"{len(problems)}"),
            ("rows of the export, restored and checked", f"{restored}"),
            ("time, events a second", f"{seconds:.0f} s, {acknowledged / seconds:.0f}"),
            ("longest write-ahead log", f"{longest / 2**20:.1f} MiB"),
            ("size of the file", f"{path.stat().st_size / 2**20:.1f} MiB"),
        ]
        print("\n".join(("| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows))))
        for word in [*errors, *missing, *problems][:20]:
            print(word, file=sys.stderr)
        return 1 if errors or missing or problems or acknowledged < told.writers * told.events else 0


if __name__ == "__main__":
    sys.exit(main())
