"""LoRA training of a tiny model: learning, repeatability, early stopping, failures."""

import errno
import json

import pytest
import torch

from looper.chat import CHATML
from looper.errors import ConfigError, StoreError, TrainingError
from looper.training.adapters import alone, finished, inputs_digest
from looper.training.torch_trainer import TorchTrainer
from tests.training.conversations import conversation


def trainer(**settings):
    return TorchTrainer(**{"lr": 1e-2, "batch": 4, "held_out": 0.0, "held_out_min_tasks": 10, **settings})


def weights(adapter):
    return (adapter / "adapter_model.safetensors").read_bytes()


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def trained(model, examples, tmp_path_factory):
    """One training that several tests look at."""
    out = tmp_path_factory.mktemp("trained") / "a"
    return trainer().fit(model, examples, start=None, out=out, seed=0)


def test_the_loss_falls_and_the_adapter_is_what_lowers_it(trained, model, examples):
    assert [row["epoch"] for row in trained.history] == [1.0, 2.0, 3.0]
    assert trained.train_loss == trained.history[-1]["train_loss"] < trained.history[0]["train_loss"] < 8.0
    assert trained.held_out_loss is None and trained.steps == 9
    before, after = (trainer().losses(model, examples, adapters) for adapters in ((), (trained.adapter,)))
    assert all(b > a + 0.5 for b, a in zip(before, after, strict=True))
    # company does not matter, but for rounding, nor does the order
    alone = trainer().losses(model, examples[3:4], [trained.adapter])
    assert alone[0] == pytest.approx(after[3], rel=0.02)


def test_the_folder_is_complete_and_in_peft_format(trained, model):
    assert sorted(files(trained.adapter)) == ["adapter_config.json", "adapter_model.safetensors", "looper.json"]
    config = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (16, 32, "none")
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert not trained.adapter.with_name("a.part").exists()


def test_the_same_inputs_give_the_same_bits_and_other_seeds_others(trained, model, examples, tmp_path):
    torch.manual_seed(99)  # the caller's random state plays no part
    again = trainer().fit(model, examples, start=None, out=tmp_path / "again", seed=0)
    other = trainer().fit(model, examples, start=None, out=tmp_path / "other", seed=1)
    assert files(again.adapter)["adapter_config.json"] == files(trained.adapter)["adapter_config.json"]
    assert weights(again.adapter) == weights(trained.adapter) != weights(other.adapter)


def test_a_finished_training_is_reused_and_an_unfinished_one_redone(model, examples, tmp_path):
    out = tmp_path / "a"
    first = trainer(epochs=1).fit(model, examples, start=None, out=out, seed=0)
    reused = trainer(epochs=1).fit(model, examples, start=None, out=out, seed=0)
    assert reused == first  # its seconds included: nothing was trained
    good = weights(out)
    (out / "looper.json").unlink()  # as after a kill
    (out / "adapter_model.safetensors").write_bytes(b"half")
    out.with_name("a.part").mkdir()
    redone = trainer(epochs=1).fit(model, examples, start=None, out=out, seed=0)
    assert weights(out) == good and redone.history == first.history
    (out / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(StoreError, match="not the file that its manifest describes"):
        trainer(epochs=1).fit(model, examples, start=None, out=out, seed=0)


def test_training_goes_on_from_an_adapter(trained, model, examples, tmp_path):
    more = trainer().fit(model, examples, start=trained.adapter, out=tmp_path / "more", seed=0)
    assert more.history[0]["train_loss"] < trained.train_loss + 0.2 < trained.history[0]["train_loss"]
    assert more.train_loss < trained.train_loss
    with pytest.raises(TrainingError, match="has rank 16 and alpha 32, the trainer 8 and 32"):
        trainer(rank=8).fit(model, examples, start=trained.adapter, out=tmp_path / "narrow", seed=0)


def test_training_stops_when_held_out_tasks_get_worse_and_keeps_the_best_epoch(model, tmp_path):
    # Tasks of random names: past some point only memorising lowers the training loss.
    names = [f"{i * i * 7919 % 99991:05d}" for i in range(20)]
    noise = [conversation(name, [f"<read>{name[::-1]}{name}.py</read>"]) for name in names]
    settings = {"epochs": 30, "held_out": 0.2, "lr": 3e-2}
    fit = trainer(**settings).fit(model, noise, start=None, out=tmp_path / "a", seed=0)
    curve = [row["held_out_loss"] for row in fit.history]
    assert len(curve) < 30 and curve[-1] > min(curve) == fit.held_out_loss
    assert curve.index(min(curve)) == len(curve) - 2
    manifest = json.loads((fit.adapter / "looper.json").read_text())
    assert manifest["held_out_examples"] == 4 and manifest["examples"] == 16


def test_few_tasks_are_all_trained_on(model, examples, tmp_path):
    nine = [*examples[:9], *examples[:9]]  # examples are many, tasks are not
    fit = trainer(held_out=0.2, epochs=1).fit(model, nine, start=None, out=tmp_path / "a", seed=0)
    assert fit.held_out_loss is None


def test_a_loss_that_is_not_finite_is_an_error_and_the_last_good_adapter_stays(model, examples, tmp_path):
    out = tmp_path / "a"
    with pytest.raises(TrainingError, match=r"at step \d of .* lower trainer.lr=1e\+30; .*epoch") as caught:
        trainer(lr=1e30, epochs=4, warmup=0.0, batch=12).fit(model, examples, start=None, out=out, seed=0)
    assert not out.exists()
    assert "the best finished epoch's adapter is in" in str(caught.value)
    assert (tmp_path / "a.part" / "adapter_model.safetensors").is_file()


def test_nothing_to_train_on_is_an_error(model, tmp_path):
    with pytest.raises(TrainingError, match="no examples to train on"):
        trainer().fit(model, [], start=None, out=tmp_path / "a", seed=0)
    with pytest.raises(TrainingError, match=r"has no config\.json"):
        trainer().losses(tmp_path, [conversation("t", ["<done/>"])])
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(TrainingError, match=r"has no \*\.safetensors; save its weights"):
        trainer().losses(tmp_path, [conversation("t", ["<done/>"])])
    with pytest.raises(ConfigError, match=r"trainer\.epochs=0"):
        TorchTrainer(epochs=0)


def test_an_example_that_cannot_be_trained_on_is_left_out_and_counted(model, examples, tmp_path, caplog):
    long = conversation("t90", ["<bash>" + "x" * 900 + "</bash>"])
    silent = conversation("t91", ["<done/>"], [0.0])
    given = [examples[0], long, *examples[1:4], silent]
    fit = trainer(epochs=1).fit(model, given, start=None, out=tmp_path / "a", seed=0)
    plain = trainer(epochs=1).fit(model, examples[:4], start=None, out=tmp_path / "b", seed=0)
    assert weights(fit.adapter) == weights(plain.adapter)
    assert fit.history[0]["left_out"] == 2.0 and "left_out" not in plain.history[0]
    manifest = json.loads((fit.adapter / "looper.json").read_text())
    assert manifest["left_out"] == {"longer than the model takes": 1, "no token to learn": 1}
    assert "1 of 6 examples are left out: longer than the model takes (first: the example of task 't90'" in caplog.text
    losses = trainer().losses(model, given)
    assert [loss != loss for loss in losses] == [False, True, False, False, False, True]
    with pytest.raises(TrainingError, match=r"none of 2 examples can be trained on; .*'t90'.* the model takes 256"):
        trainer().fit(model, [long, silent], start=None, out=tmp_path / "c", seed=0)


def test_the_digest_of_plain_inputs_has_not_changed(tmp_path):
    for name in ("config.json", "tokenizer.json", "a.safetensors"):
        (tmp_path / name).write_text(name)
    example = conversation("t1", ["<done/>"])
    found = inputs_digest(tmp_path, [example], None, TorchTrainer(checkpoint_minutes=9.0).decisive(), 3)
    assert found == "2b470797fec82cf52f72f1bac9a54f28"
    labelled = example.model_copy(update={"label": -1.0})
    assert inputs_digest(tmp_path, [labelled], None, TorchTrainer().decisive(), 3) != found
    for template, same in ((CHATML, True), (CHATML + " ", False)):
        (tmp_path / "chat_template.jinja").write_text(template)
        assert (inputs_digest(tmp_path, [example], None, TorchTrainer().decisive(), 3) == found) is same


def test_what_goes_wrong_while_the_folder_is_held_is_told_for_what_it_is(tmp_path):
    with (
        pytest.raises(StoreError, match=r"cannot write .*: No space left on device; free space"),
        alone(tmp_path / "a"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(TrainingError, match="the model cannot be loaded: no file named x"), alone(tmp_path / "a"):
        raise OSError("no file named x")


def test_a_manifest_of_another_make_is_named(tmp_path):
    (tmp_path / "looper.json").write_text(json.dumps({"inputs": "i", "weights": "w", "fit": {"history": [], "old": 1}}))
    assert finished(tmp_path, "another") is None
    with pytest.raises(StoreError, match=r"looper\.json is unreadable .*; delete .* to train again"):
        finished(tmp_path, "i")
