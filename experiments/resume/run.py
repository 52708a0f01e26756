"""Kill a run with SIGKILL at random moments, restart it each time, and compare with an undisturbed run.

Claim:    a killed run goes on where it was: the same metrics.json (times aside), no finished session run twice.
Command:  python experiments/resume/run.py --kills 20
Cost:     about 10 minutes on two cores
Expected: experiments/resume/README.md
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

SMALL = [
    "benchmark.size=40",
    "benchmark.probe_tasks=8",
    "curriculum.train=16",
    "curriculum.held_out=24",
    "attempts=2",
]


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not k.startswith("seconds")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def folder_of(cwd: Path) -> Path:
    (folder,) = (cwd / "outputs" / "runs").iterdir()
    return folder


def start(cwd: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "looper", *SMALL]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def undisturbed(cwd: Path) -> float:
    begun = time.monotonic()
    if start(cwd).wait() != 0:
        raise SystemExit("the undisturbed run failed")
    return time.monotonic() - begun


def disturbed(cwd: Path, kills: int, seconds: float, seed: int) -> int:
    """Run until done, killing up to `kills` times; return how often it was killed."""
    rng = random.Random(seed)
    done = 0
    while True:
        process = start(cwd)
        # Early kills come soon, so that the run gets far enough only bit by bit.
        limit = rng.uniform(2.0, 2.0 + 2.2 * seconds / kills) if done < kills else None
        try:
            if process.wait(timeout=limit) != 0:
                raise SystemExit("the run failed by itself")
            return done
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        calm, wild = Path(place, "calm"), Path(place, "wild")
        calm.mkdir()
        wild.mkdir()
        seconds = undisturbed(calm)
        killed = disturbed(wild, arguments.kills, seconds, arguments.seed)
        one, two = (timeless(json.loads((folder_of(cwd) / "metrics.json").read_text())) for cwd in (calm, wild))
        events = [json.loads(line) for line in (folder_of(wild) / "events.jsonl").read_text().splitlines()]
        sessions = Counter(e["data"]["digest"] for e in events if e["kind"] == "session")
        half = [p for p in wild.rglob("*.json") if not p.stat().st_size]
        print(f"undisturbed run: {seconds:.0f} s")
        print(f"killed with SIGKILL: {killed} times")
        print(f"same metrics.json, times aside: {one == two}")
        print(f"sessions finished: {len(sessions)}, run twice: {sum(n > 1 for n in sessions.values())}")
        print(f"empty files left: {len(half)}")
        if one != two or any(n > 1 for n in sessions.values()) or half:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
