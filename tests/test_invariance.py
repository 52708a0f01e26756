"""Company changes nothing: the same sessions, word for word, however many run at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("invariance", ROOT / "experiments" / "invariance" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sessions_are_the_same_at_any_width_and_after_a_restart(experiment: ModuleType) -> None:
    alone = experiment.words(experiment.play(12, 1))
    assert experiment.words(experiment.play(12, 7)) == alone
    assert experiment.words(experiment.play(12, 12, cut=5)) == alone
    assert len({tuple(words) for words in alone}) == 12


@pytest.mark.slow
def test_two_hundred_sessions_are_the_same_at_any_width(experiment: ModuleType) -> None:
    alone = experiment.words(experiment.play(200, 1))
    for parallel, cut in ((7, 0), (200, 0), (7, 66)):
        assert experiment.words(experiment.play(200, parallel, cut=cut)) == alone
