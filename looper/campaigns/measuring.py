"""Measurements by content: one program on one seed under one budget is trained once, whichever arm asks for it."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from looper.benchmarks.research.improvable import Improvable
from looper.benchmarks.research.measurement import Measurement
from looper.errors import TrainingError
from looper.protocols import Workspace
from looper.records import digest_of
from looper.store import Store, read_record, write_whole


@contextmanager
def machine() -> Iterator[None]:
    """Hold the machine for one training whose result its speed decides, against other runs of the same user."""
    import fcntl

    place = Path(tempfile.gettempdir()) / f"looper-training-{os.getuid()}.lock"
    lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run trains on this machine, and the speed of both counts: waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measures programs; safe to use from several threads."""

    benchmark: Improvable
    workspace: Workspace
    store: Store
    at_once: int = 1
    """Trainings of one campaign at a time, where several are wanted together."""
    locks: MutableMapping[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    """One for each measurement, shared by the benches of a study: what two arms ask for at once is trained once."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to begin no further training."""

    def digest(self, program: str, seed: int) -> str:
        """Return the content address of a measurement."""
        ground = [self.benchmark.identity, dict(self.workspace.identity)]
        return digest_of({"program": program, "seed": seed, "ground": ground})

    def measure(self, program: str, seed: int) -> Measurement:
        """Return what a program scores on a seed; it is run unless that is stored.

        Raises TrainingError where it would have to be run after a stop.
        """
        digest = self.digest(program, seed)
        with self.locks[digest]:
            known = read_record(self._path(digest), Measurement)
            if known is not None:
                return known
            if self.stop.is_set():
                raise TrainingError("the campaign was stopped; the same command goes on from here")
            with machine() if self.benchmark.one_at_a_time else nullcontext():
                made = self.benchmark.measure(program, seed=seed, workspace=self.workspace)
            write_whole(self._path(digest), made.model_dump_json())
            return made

    def forget(self, program: str, seed: int) -> None:
        """Drop what is stored of a measurement: the next one is made anew."""
        self._path(self.digest(program, seed)).unlink(missing_ok=True)

    def measure_all(self, wanted: Sequence[tuple[str, int]]) -> list[Measurement]:
        """Return what programs score on seeds, in the order asked for; up to `at_once` are run at a time."""
        if self.at_once == 1 or len(wanted) == 1:
            return [self.measure(program, seed) for program, seed in wanted]
        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(lambda one: self.measure(*one), wanted))

    def _path(self, digest: str) -> Path:
        return self.store.folder("measurements", digest[:2]) / f"{digest}.json"
