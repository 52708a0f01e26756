"""Training with MLX against the torch trainer: the same losses, the same curves, the same format."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from looper.errors import ConfigError, TrainingError
from looper.protocols import Preference
from looper.records import digest_of
from looper.training.formats import peft_folder
from looper.training.mlx_trainer import MlxTrainer
from looper.training.schedule import Precision
from looper.training.torch_trainer import TorchTrainer

pytest.importorskip("mlx_lm")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT calls what transformers has renamed

SETTINGS = {"rank": 4, "alpha": 8, "lr": 1e-2, "batch": 2, "epochs": 2, "held_out": 0.0, "precision": Precision.fp32}


@pytest.fixture(scope="module")
def begun(model, tmp_path_factory):
    """An untrained adapter, as PEFT starts it; both trainers go on from it."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    out = tmp_path_factory.mktemp("begun") / "a"
    get_peft_model(base, config).save_pretrained(str(out), save_embedding_layers=False)
    return out


@pytest.fixture(scope="module")
def both(model, examples, begun, tmp_path_factory):
    out = tmp_path_factory.mktemp("both")
    return {
        name: trainer(**SETTINGS).fit(model, examples[:5], start=begun, out=out / name, seed=3)
        for name, trainer in (("torch", TorchTrainer), ("mlx", MlxTrainer))
    }


def test_both_trainers_give_the_same_curve_and_nearly_the_same_adapter(both):
    ours, theirs = both["mlx"].history, both["torch"].history
    assert both["mlx"].steps == both["torch"].steps == 6
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=2e-4)
    assert ours[-1]["train_loss"] < ours[0]["train_loss"]
    first, second = (load_file(both[name].adapter / peft_folder.WEIGHTS) for name in ("mlx", "torch"))
    assert first.keys() == second.keys()
    off = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert off < 0.1 * max(float(second[name].abs().max()) for name in second)


def test_both_hold_out_the_same_tasks_and_keep_the_best_epoch(model, examples, begun, tmp_path):
    settings = SETTINGS | {"held_out": 0.34, "held_out_min_tasks": 2, "epochs": 3, "lr": 0.3}
    ours, theirs = (
        trainer(**settings).fit(model, examples[:6], start=begun, out=tmp_path / trainer.__name__, seed=3)
        for trainer in (MlxTrainer, TorchTrainer)
    )
    assert ours.history[0]["held_out_loss"] == pytest.approx(theirs.history[0]["held_out_loss"], rel=0.05)
    manifest = json.loads((ours.adapter / "looper.json").read_text())
    assert (manifest["examples"], manifest["held_out_examples"]) == (4, 2)
    held = [e for e in examples[:6] if e.task in held_out(examples[:6], settings)]
    kept = MlxTrainer(**settings).losses(model, held, [ours.adapter])
    assert ours.held_out_loss == min(row["held_out_loss"] for row in ours.history)
    assert sum(kept) / 2 == pytest.approx(ours.held_out_loss, rel=0.02)  # the examples are equally long


def held_out(examples, settings):
    """The tasks that are held out with seed 3."""
    order = sorted({e.task for e in examples}, key=lambda task: digest_of([3, task]))
    return order[: round(settings["held_out"] * len(order))]


def test_both_give_the_same_losses_with_adapters_and_without(both, model, examples):
    for adapters in ([], [both["torch"].adapter], [both["torch"].adapter, both["mlx"].adapter]):
        mine = MlxTrainer(**SETTINGS).losses(model, examples[:3], adapters)
        assert mine == pytest.approx(list(TorchTrainer(**SETTINGS).losses(model, examples[:3], adapters)), abs=1e-4)


def test_a_nested_rope_theta_is_seen(model, examples, tmp_path):
    other = shutil.copytree(model, tmp_path / "m")
    tensors = load_file(other / "model.safetensors")
    sharp = {name: t * 16 if "q_proj" in name or "k_proj" in name else t for name, t in tensors.items()}
    save_file(sharp, other / "model.safetensors", metadata={"format": "pt"})  # attention that depends on positions
    config = json.loads((other / "config.json").read_text())
    found = []
    for theta in (20.0, 1e6):  # the second is what mlx-lm takes where it sees none
        config["rope_parameters"]["rope_theta"] = theta
        (other / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "rope_theta"}))
        found.append(MlxTrainer(**SETTINGS).losses(other, examples[:2]))
        assert found[-1] == pytest.approx(list(TorchTrainer(**SETTINGS).losses(other, examples[:2])), abs=1e-4)
    assert found[0] != pytest.approx(found[1], abs=1e-3)


def test_the_same_seed_gives_the_same_bits_and_a_finished_training_is_reused(model, examples, tmp_path):
    trainer = MlxTrainer(**SETTINGS | {"epochs": 1})
    one, two, other = (
        trainer.fit(model, examples[:2], start=None, out=tmp_path / name, seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    weights = [(fit.adapter / peft_folder.WEIGHTS).read_bytes() for fit in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert trainer.fit(model, examples[:2], start=None, out=tmp_path / "a", seed=0) == one
    config = json.loads((one.adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 8)


def test_a_frozen_adapter_beneath_is_active(both, model, examples, begun, tmp_path):
    trainer = MlxTrainer(**SETTINGS | {"epochs": 1, "batch": 1, "lr": 1e-12})
    under = [both["torch"].adapter]
    fit = trainer.fit(model, examples[:1], start=begun, out=tmp_path / "a", seed=0, under=under)
    assert [fit.train_loss] == pytest.approx(trainer.losses(model, examples[:1], under), abs=1e-4)


def test_a_quantised_base_takes_adapters_as_they_are(both, model, examples, begun, tmp_path):
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    folder, settings = shutil.copytree(model, tmp_path / "m"), {"group_size": 32, "bits": 8}
    whole, config = load_model(folder)
    nn.quantize(whole, **settings)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(whole.parameters())), {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config | {"quantization": settings}))
    under = [both["torch"].adapter]
    wanted = [list(TorchTrainer(**SETTINGS).losses(model, examples[:3], adapters)) for adapters in ([], under)]
    trainer = MlxTrainer(**SETTINGS | {"epochs": 1, "batch": 1, "lr": 1e-12})
    found = [trainer.losses(folder, examples[:3], adapters) for adapters in ([], under)]
    assert found[0] == pytest.approx(wanted[0], abs=0.02) and found[1] == pytest.approx(wanted[1], abs=0.02)
    assert found[0] != pytest.approx(found[1], abs=0.05)
    fit = trainer.fit(folder, examples[:1], start=begun, out=tmp_path / "a", seed=0, under=under)
    assert fit.train_loss == pytest.approx(found[1][0], abs=1e-4)


def test_measures_are_those_of_the_torch_trainer(both, model, examples):
    texts, adapters = ["one text", "another one"], [both["torch"].adapter]
    mine, theirs = (trainer(**SETTINGS) for trainer in (MlxTrainer, TorchTrainer))
    found = mine.embeddings(model, texts)
    assert found.shape == (2, 32) and found.dtype == "float32"
    assert abs(found - theirs.embeddings(model, texts)).max() < 1e-4
    assert mine.divergence(model, [examples[:2]], []) == [pytest.approx(0.0, abs=1e-6)]
    (wanted,) = theirs.divergence(model, [examples[:2]], adapters)
    found = mine.divergence(model, [[], examples[:2]], adapters)
    assert isinstance(found[0], TrainingError) and found[1] == pytest.approx(wanted, rel=1e-3)


def test_what_it_does_not_know_is_refused_by_name(model, examples, begun, tmp_path):
    trainer = MlxTrainer(**SETTINGS)
    with pytest.raises(TrainingError, match=r"Preference.*trainer=torch"):
        trainer.fit(model, examples, start=None, out=tmp_path / "a", seed=0, objective=Preference(beta=0.1))
    with pytest.raises(TrainingError, match="Fisher"):
        trainer.importance(model, examples, begun, tmp_path / "f", sampled=True, product=False, seed=0)
    with pytest.raises(TrainingError, match="rank 4"):
        MlxTrainer(**SETTINGS | {"rank": 8}).fit(model, examples, start=begun, out=tmp_path / "a", seed=0)
    with pytest.raises(ConfigError, match="lr"):
        MlxTrainer(lr=0.0)
