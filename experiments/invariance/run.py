"""Play the same sessions with different numbers of them at once, and after a restart; compare every word.

Claim:    the company a session is in changes nothing: identical action text at 1, 7 and all sessions at once, at
          temperature 1, and when a run is cut and taken up again.
Command:  python experiments/invariance/run.py --sessions 200
Cost:     about 5 minutes on two cores
Expected: experiments/invariance/README.md
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from looper.agents.loop import Agent, Budget
from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.benchmark import Bugs, FamilyKind
from looper.memory.none import NoMemory
from looper.models.nano.model import Nano
from looper.records import Episode, Skill
from looper.rollout import Wave, roll
from looper.session import Sessions
from looper.store import Store
from looper.workspaces.local import LocalWorkspace


def play(tasks: int, parallel: int, *, cut: int = 0) -> list[Episode]:
    """Play one try at temperature 1 of each task; with `cut`, first only so many, then all from a new model."""
    benchmark = Bugs(family=FamilyKind.FRESH, size=tasks, probes=[])
    wave = Wave(tasks=benchmark.load(1), attempts=1, temperature=1.0, seed=1)
    with tempfile.TemporaryDirectory() as place:
        episodes: list[Episode] = []
        for count in [cut, tasks] if cut else [tasks]:
            sessions = Sessions(
                agent=Agent(prompt=Prompt(), budget=Budget()),
                benchmark=benchmark,
                workspace=LocalWorkspace(),
                store=Store(Path(place)),
                model=Nano(),
                skill=Skill(),
            )
            attempts = wave.plan(NoMemory())[:count]
            episodes = roll(sessions, attempts, parallel=parallel, observe=lambda *_: None)
        return episodes


def words(episodes: list[Episode]) -> list[list[str]]:
    return [[step.reply for step in episode.trajectory.steps] for episode in episodes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=200)
    arguments = parser.parse_args()
    count = arguments.sessions
    reference: list[list[str]] = []
    failed = False
    for name, parallel, cut in (("1", 1, 0), ("7", 7, 0), ("all", count, 0), ("7, cut and resumed", 7, count // 3)):
        begun = time.monotonic()
        episodes = play(count, parallel, cut=cut)
        said = words(episodes)
        reference = reference or said
        same = sum(a == b for a, b in zip(said, reference, strict=True))
        failed |= same != count
        turns = sum(len(replies) for replies in said)
        resolved = sum(e.resolved for e in episodes)
        print(
            f"{name:>20} at once: {same} of {count} sessions identical ({turns} replies, {resolved} resolved), "
            f"{time.monotonic() - begun:.0f} s",
            flush=True,
        )
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
