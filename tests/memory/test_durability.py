"""Eight processes write one file and are killed at random moments: nothing acknowledged is lost, the file is whole."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from looper.memory.check import check

RUN = Path(__file__).parents[2] / "experiments" / "memory_durability" / "run.py"


@pytest.fixture(scope="module")
def durability() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_durability", RUN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_killed_writers_lose_nothing_that_was_acknowledged(durability: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    crew, _ = durability.torture(path, writers=8, events=200, kills=6, pause=0.1, seed=1)
    assert [writer.errors for writer in crew] == [[]] * 8
    assert [writer.acknowledged for writer in crew] == [200] * 8
    assert sum(writer.kills for writer in crew) > 0
    assert durability.lost(path, crew) == []
    assert check(path) == []


def test_the_count_of_lost_events_can_fail(durability: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    durability.write(path, 0, 0, 5)
    writer = durability.Writer(path, 0, 10, acknowledged=5)
    assert durability.lost(path, [writer]) == []
    writer.acknowledged = 7
    assert durability.lost(path, [writer]) == ["experiment 0:3: 0 events", "outcome 0:2: 0 events"]
