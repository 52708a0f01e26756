"""The store removes what killed processes left half-written, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from looper.store import STALE_SECONDS, Store, write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)  # dies with the draft written
from looper.store import write_whole
write_whole(Path(sys.argv[1]), "half")
"""


def left_by_a_kill(path: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    (draft,) = path.parent.glob(".*")
    return draft


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_old_drafts_go_and_everything_else_stays(tmp_path: Path) -> None:
    draft = left_by_a_kill(tmp_path / "episodes" / "ab" / f"{'ab' * 16}.json")
    drafts = [draft]
    for place in (".", "runs/r", "trajectories/ab", "verdicts/cd", "jobs/day/time", "sweeps/day/time", "sweeps/d/t/0"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        drafts.append(tmp_path / place / draft.name)
        drafts[-1].write_text("half")
    mine = [tmp_path / name for name in (".config.settings", ".x.part", "runs/r/film.part", "runs/r/metrics.json")]
    for path in mine:
        path.write_text("")
        age(path, 100 * STALE_SECONDS)
    Store(tmp_path)
    assert all(path.exists() for path in drafts), "a young draft may be someone's"
    for path in drafts:
        age(path, STALE_SECONDS + 60)
    Store(tmp_path)
    assert not any(path.exists() for path in drafts)
    assert all(path.exists() for path in mine)


def test_stores_opened_at_the_same_time_do_not_disturb_each_other_or_writers(tmp_path: Path) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    for i in range(200):
        draft = tmp_path / "runs" / "r" / f".x{i}.json.{i:08d}.part"
        draft.write_text("")
        age(draft, STALE_SECONDS + 60)

    def write(i: int) -> None:
        write_whole(tmp_path / "runs" / "r" / f"{i}.json", "whole")

    with ThreadPoolExecutor(8) as pool:
        opened = [pool.submit(Store, tmp_path) for _ in range(8)]
        written = [pool.submit(write, i) for i in range(50)]
    for future in [*opened, *written]:
        future.result()
    assert {path.name for path in (tmp_path / "runs" / "r").iterdir()} == {f"{i}.json" for i in range(50)}
