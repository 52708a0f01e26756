"""A training with MLX that was stopped goes on to the same bits."""

import json

import pytest

from looper.errors import ConfigError
from looper.training.mlx_trainer import MlxTrainer
from looper.training.schedule import Precision
from tests.training.test_checkpoints import files, killed_with_a_state, started

pytest.importorskip("mlx_lm")

SETTINGS = {"rank": 4, "alpha": 8, "lr": 1e-2, "precision": Precision.fp32, "checkpoint_minutes": 0.0}


class Stopped(MlxTrainer):
    """A trainer that is interrupted before its sixth step."""

    def rate(self, step, steps):
        if step == 5:
            raise KeyboardInterrupt
        return super().rate(step, steps)


def manifest(folder):
    return json.loads((folder / "looper.json").read_text())


def test_an_interrupted_training_goes_on_to_the_same_bits(model, examples, tmp_path):
    settings = SETTINGS | {"epochs": 3, "held_out": 0.34, "held_out_min_tasks": 2, "patience": 3}
    call = {"model": model, "examples": examples[:6], "start": None, "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        Stopped(**settings).fit(**call, out=tmp_path / "a")
    assert (tmp_path / "a.part" / "state.pt").is_file() and not (tmp_path / "a").exists()
    (tmp_path / "a.part" / "state.pt.new").write_bytes(b"half of one")
    resumed = MlxTrainer(**settings).fit(**call, out=tmp_path / "a")
    whole = MlxTrainer(**settings | {"checkpoint_minutes": 3.0}).fit(**call, out=tmp_path / "b")
    assert manifest(tmp_path / "a")["resumed_at_step"] == 5 and "resumed_at_step" not in manifest(tmp_path / "b")
    assert manifest(tmp_path / "a")["inputs"] == manifest(tmp_path / "b")["inputs"]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert resumed.history == whole.history and resumed.steps == whole.steps == 6
    assert not (tmp_path / "a.part").exists()


def test_a_state_of_other_inputs_is_not_gone_on_from(model, examples, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Stopped(**SETTINGS).fit(model, examples[:4], start=None, out=tmp_path / "a", seed=0)
    MlxTrainer(**SETTINGS | {"epochs": 1}).fit(model, examples[:2], start=None, out=tmp_path / "a", seed=0)
    assert "resumed_at_step" not in manifest(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"trainer\.checkpoint_minutes=-1"):
        MlxTrainer(checkpoint_minutes=-1.0)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(model, examples, tmp_path):
    trainer = MlxTrainer(**SETTINGS | {"epochs": 6, "held_out": 0.0})
    call = {"model": model, "examples": examples, "start": None, "seed": 0}
    process = started({**call, "trainer": trainer, "out": tmp_path / "a"}, tmp_path)
    killed_with_a_state(process, tmp_path / "a")
    resumed = trainer.fit(**call, out=tmp_path / "a")
    whole = trainer.fit(**call, out=tmp_path / "b")
    assert manifest(tmp_path / "a")["resumed_at_step"] > 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert resumed.history == whole.history and resumed.steps == whole.steps
