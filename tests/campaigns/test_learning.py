"""Sessions of campaigns become examples and an adapter, as those of other runs do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from looper.actions import FormatError, parse
from looper.campaigns.learning import Learning
from looper.errors import ConfigError
from looper.learning.data.trajectory import TrajectoryData
from looper.learning.sft import Sft
from looper.models.nano.model import Nano
from looper.models.recipe import Recipe
from looper.protocols import Materials
from looper.records import Adapter, Skill
from looper.report.campaign import note_lines
from looper.store import Store
from looper.training.torch_trainer import TorchTrainer
from tests.campaigns.small import Small, Writing
from tests.campaigns.test_study import run
from tests.models.loopback import asking


def learning(**changed: Any) -> Learning:
    parts = {"learner": Nano(), "data": TrajectoryData(), "strategy": Sft(), "ground": "test"}
    trainer = TorchTrainer(rank=4, epochs=1)
    return Learning(**{**parts, "trainer": trainer, **changed})


def played(place: Path, **options: Any) -> Any:
    metrics, trials = run(place, model=Writing(), benchmark=Small(), experiments=4, gate=0.0, line_price=0.0, **options)
    lines = (place / "run" / "episodes.jsonl").read_text().splitlines()
    return (
        metrics,
        trials["stateful-1"],
        [Store(place / "outputs").episode(json.loads(one)["episode"]) for one in lines],
    )


def test_an_adapter_is_trained_on_the_sessions_whose_change_was_kept(tmp_path: Path) -> None:
    metrics, trials, episodes = played(tmp_path, learning=learning())
    kept = [trial for trial in trials if trial["fate"] == "keep"]
    assert 0 < len(kept) < len(trials), "the test needs both"
    assert [one.resolved for one in episodes] == [trial["fate"] == "keep" for trial in trials]
    examples = TrajectoryData().examples(episodes, 1, Materials())
    assert {one.task for one in examples} == {f"stateful-1/{trial['number']}" for trial in kept}
    for one in examples:
        taught = [parse(m.content) for m, weight in zip(one.messages, one.weights, strict=True) if weight]
        assert [action.kind for action in taught if not isinstance(action, FormatError)] == ["write", "done"]
    (facts,) = metrics["learning"]["adapted"]
    assert facts["examples"] == facts["tasks"] == len(kept)
    folder = tmp_path / "outputs" / facts["adapters"][0]
    base = Nano()
    adapted = base.with_skill(Skill(adapters=(Adapter(path=str(folder), digest="x", base=base.id),)))
    (reply,) = adapted.reply([asking("Lower val_bpb.", max_tokens=4)])
    assert reply.completion_tokens
    assert f"Examples learned from: adapted {len(kept)}." in note_lines(metrics)
    again, _, _ = played(tmp_path, learning=learning())
    assert again == metrics, "a finished training is not done again"


def test_nothing_kept_is_a_result_and_what_was_measured_stands(tmp_path: Path) -> None:
    metrics, _ = run(tmp_path, model=Writing(), benchmark=Small(), experiments=1, gate=99.0, learning=learning())
    (facts,) = metrics["learning"]["adapted"]
    assert facts["adapters"] == []
    assert "data.only_resolved=false" in facts["skipped"]
    assert metrics["campaigns"][0]["trials"] == 1


def test_one_session_with_two_fates_is_two_episodes(tmp_path: Path) -> None:
    strict = {"pairs": 0, "line_price": 9.0}
    _, mild, before = played(tmp_path)
    (tmp_path / "run").rename(tmp_path / "mild")
    metrics, _ = run(tmp_path, model=Writing(), benchmark=Small(), experiments=1, **strict)
    store = Store(tmp_path / "outputs")
    assert [store.episode(one.digest) for one in before] == before, "a stricter run changed what an earlier one found"
    assert mild[0]["fate"] == "keep" and metrics["arms"]["stateful"]["fates"] == {"discard": 1}


def test_a_model_without_weights_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"recipe-1-train.py has no weights here; give \+model@learner=NAME"):
        learning(learner=Recipe()).check()
    learning().check()
