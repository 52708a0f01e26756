"""Recordings of oracle sessions on the bundled benchmark, for runs that need no language model."""

from __future__ import annotations

from pathlib import Path
from random import Random

from looper.agents.prompt import Prompt
from looper.benchmarks.bugs.benchmark import EVALUATION, SEED_STRIDE, SHARE, Bugs
from looper.benchmarks.bugs.draw import Draw, draw
from looper.benchmarks.bugs.family import conventions_family, mix_family
from looper.models.replay import record
from looper.pretraining.sessions import play
from looper.records import Message, Recall

SIZE = 6
"""Distinct tasks of the primary family in these runs."""
PROBED = 2
"""Distinct tasks of `seen`."""
OVERRIDES = (
    f"benchmark.size={SIZE}",
    "benchmark.probes=[seen]",
    f"benchmark.probe_tasks={PROBED}",
    "curriculum.train=2",
    "curriculum.held_out=4",
    "attempts=2",
    "strategy=none",
    "model=replay",
)
"""A small run over them."""


def draws(seed: int = 1) -> list[Draw]:
    """Return the draws that a small run meets."""
    first = EVALUATION + seed * SEED_STRIDE
    pair = conventions_family(Bugs().trees)
    two_copy = [draw(pair, i, world="A") for i in range(first, first + SIZE)]
    probed = range(first + SHARE, first + SHARE + PROBED)
    return two_copy + [draw(mix_family(i % 24, kind="seen"), i) for i in probed]


def write_recording(path: Path, seed: int = 1, wrong: int = 0) -> None:
    """Record the oracle on every task of a small run; the first `wrong` sessions stop at once instead."""
    conversations: list[list[Message]] = []
    for i, drawn in enumerate(draws(seed)):
        messages = list(play(drawn, Prompt(), Recall(), Random(f"{i}"), tree="", detours=False).messages)
        if i < wrong:
            messages = [*messages[:2], Message(role="assistant", content="<done/>")]
        conversations.append(messages)
    record(path, conversations)
