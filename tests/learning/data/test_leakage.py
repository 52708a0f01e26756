"""Tasks whose issue tells the patch are left out of training where that is asked for."""

from __future__ import annotations

import pytest

from looper.errors import ConfigError, TrainingError
from looper.leakage import measure
from looper.learning.data.trajectory import TrajectoryData
from looper.protocols import Materials


def test_leaking_sessions_are_counted_and_left_out(sessions) -> None:
    leaking, sound = (drawn.task for drawn in sessions.draws)
    added = [line[1:].strip() for line in leaking.gold.split("\n") if line.startswith("+") and line[:3] != "+++"]
    told = leaking.model_copy(update={"issue": f"{leaking.issue}\n{added[0]}", "gold": leaking.gold})
    materials = Materials(tasks={told.id: told, sound.id: sound})
    selection = TrajectoryData(leakage=0.5).select(sessions.episodes, 0, materials)
    assert measure(told.issue, told.gold).score == 1.0
    assert [e.task for e in selection.examples] == [sound.id] and selection.skipped["leaking"] == 1
    assert len(TrajectoryData().examples(sessions.episodes, 0, Materials())) == 2
    with pytest.raises(TrainingError, match=r"data\.leakage=1"):
        TrajectoryData(leakage=0.5).examples(sessions.episodes, 0, Materials())
    with pytest.raises(ConfigError, match=r"data\.leakage=2"):
        TrajectoryData(leakage=2)
