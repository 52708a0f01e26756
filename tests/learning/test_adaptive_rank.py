"""Adaptive rank: the knee, the budget, and the exact merge of adapters."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from looper.errors import ConfigError, TrainingError
from looper.learning.adaptive_rank import AdaptiveRank, knee, ranked, split
from looper.learning.consolidation import consolidate, decompose, rank_for, rank_of
from looper.learning.sft import Sft
from looper.training.torch_trainer import TorchTrainer
from tests.learning.continual import STAGES, Bench, line, stage, tiny_model

LAYER = "base_model.model.model.layers.{}.self_attn.{}_proj"
PLACES = [(number, part) for number in (0, 1) for part in "qo"]
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "o_proj"], "bias": "none"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def adapter(folder, rank, alpha, seed, **settings):
    """A random adapter on four linear layers of the tiny model, 32 x 32 each."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for place in PLACES:
        tensors[f"{LAYER.format(*place)}.lora_A.weight"] = torch.randn(rank, 32, generator=generator)
        tensors[f"{LAYER.format(*place)}.lora_B.weight"] = torch.randn(32, rank, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "r": rank, "lora_alpha": alpha, **settings}))
    return folder


def change(folder, place):
    """The dense change of a layer: scale * B A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"{LAYER.format(*place)}.lora_{kind}.weight"].double() for kind in "AB")
    root = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    return config["lora_alpha"] / root * b @ a


@pytest.fixture
def three(tmp_path):
    return [
        adapter(tmp_path / "one", 4, 8, seed=1),
        adapter(tmp_path / "two", 2, 2, seed=2, use_rslora=True),
        adapter(tmp_path / "three", 8, 4, seed=3),
    ]


def test_a_merge_of_full_rank_is_exact(three, tmp_path):
    done = consolidate(three, tmp_path / "merged", limit=14, energy=1.0)
    assert (done.rank, done.ranks) == (14, (4, 2, 8)) and done.error < 1e-7
    for place in PLACES:
        dense = sum(change(folder, place) for folder in three)
        torch.testing.assert_close(change(tmp_path / "merged", place), dense, rtol=1e-5, atol=1e-5)


def test_a_merge_is_the_same_bits_on_any_number_of_threads():
    random = np.random.default_rng(0)
    lefts, rights = [random.normal(size=(160, 8)) for _ in "ab"], [random.normal(size=(8, 120)) for _ in "ab"]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(decompose(lefts, rights))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    one, two = found
    assert all(np.array_equal(getattr(one, part), getattr(two, part)) for part in ("left", "values", "right"))
    dense = sum(b @ a for b, a in zip(lefts, rights, strict=True))
    np.testing.assert_allclose(one.left * one.values @ one.right, dense, atol=1e-9)
    assert (one.left[np.abs(one.left).argmax(0), range(16)] > 0).all()


@pytest.mark.parametrize("limit", [1, 5, 10])
def test_a_truncated_merge_is_the_best_of_its_rank(three, tmp_path, limit):
    done = consolidate(three, tmp_path / "merged", limit=limit, energy=1.0)
    lost = total = best = 0.0
    for place in PLACES:
        dense = sum(change(folder, place) for folder in three)
        lost += float(((change(tmp_path / "merged", place) - dense) ** 2).sum())
        best += float((torch.linalg.svdvals(dense)[limit:] ** 2).sum())
        total += float((dense**2).sum())
    assert lost**0.5 == pytest.approx(best**0.5, rel=1e-5)
    assert done.error == pytest.approx((best / total) ** 0.5, rel=1e-5)
    assert rank_of(tmp_path / "merged") == done.rank == limit


def test_the_rank_is_the_lowest_that_keeps_the_energy():
    spectra = [np.array([3.0, 1.0, 0.1]), np.array([2.0, 0.0, 0.0])]
    assert rank_for(spectra, 3, 0.9) == 1
    assert rank_for(spectra, 3, 0.999) == 2
    assert rank_for(spectra, 3, 1.0) == 3 and rank_for(spectra, 2, 1.0) == 2
    small = decompose([np.ones((2, 5))], [np.ones((5, 3))])
    b, a = small.factors(4)  # wider than the layer
    assert b.shape == (2, 4) and a.shape == (4, 3)
    np.testing.assert_allclose(b @ a, np.full((2, 3), 5.0))


def test_plain_peft_loads_a_merge(model, three, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    consolidate(three, tmp_path / "merged", limit=14, energy=1.0)
    ids = torch.tensor([[5, 9, 20, 33, 7]])
    expected = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        for number, part in PLACES:
            layer = expected.get_submodule(f"model.layers.{number}.self_attn.{part}_proj")
            layer.weight += sum(change(folder, (number, part)) for folder in three).float()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            loaded = PeftModel.from_pretrained(base, str(tmp_path / "merged"))
        torch.testing.assert_close(loaded(ids).logits, expected(ids).logits, rtol=1e-3, atol=1e-3)


def test_what_is_more_than_lora_is_not_merged(three, tmp_path):
    dora = adapter(tmp_path / "dora", 2, 2, seed=4, use_dora=True)
    with pytest.raises(TrainingError, match=r"use_dora=True: .*; only plain LoRA"):
        consolidate([three[0], dora], tmp_path / "merged", limit=4, energy=1.0)
    elsewhere = adapter(tmp_path / "elsewhere", 2, 2, seed=4, target_modules=["v_proj"])
    with pytest.raises(TrainingError, match="differ in target_modules"):
        consolidate([three[0], elsewhere], tmp_path / "merged", limit=4, energy=1.0)
    assert not (tmp_path / "merged").exists()


def test_the_knee_is_the_lowest_rank_with_nearly_all_of_the_gain():
    losses = {1: 2.0, 2: 1.2, 4: 1.05, 8: 1.0, 16: 1.1}
    assert knee(losses, 3.0, 0.0) == 8
    assert knee(losses, 3.0, 0.05) == 4
    assert knee(losses, 3.0, 0.1) == 2
    assert knee(losses, 0.9, 0.1) == 1  # nothing gains


def test_the_probe_holds_out_whole_tasks():
    examples = [*stage("a", 8), *stage("a", 8)]
    train, held = split(examples, 0.25, 0)
    assert len(train) == 12 and len(held) == 4
    assert not {e.task for e in train} & {e.task for e in held}
    assert split(examples, 0.25, 0) == (train, held) != split(examples, 0.25, 1)
    assert [len(part) for part in split(stage("a", 2), 0.9, 0)] == [1, 1]


def test_the_scale_stays_with_the_rank():
    made = ranked(TorchTrainer(rank=16, alpha=32, epochs=3), 2, epochs=1, unknown=5)
    assert (made.rank, made.alpha, made.epochs) == (2, 4, 1)
    with pytest.raises(TrainingError, match=r"rank 1 at trainer\.alpha=8 and trainer\.rank=16"):
        ranked(TorchTrainer(rank=16, alpha=8), 1)


def test_with_one_rank_the_first_stage_is_plain(model, tmp_path):
    (plain, _), (again, _) = line(Sft(), STAGES[:2], Bench(model_path=model, root=tmp_path / "sft"))
    (first, _), (second, lab) = line(
        AdaptiveRank(ranks=[4], budget=8), STAGES[:2], Bench(model_path=model, root=tmp_path / "rank")
    )
    assert first.digest == plain.digest
    assert second.adapters[0] == first.adapters[0] and second.adapters[1].digest != again.adapters[0].digest
    assert lab.notes["total_rank"] == 8 and "merged" not in lab.notes
    for name, one in load_file(Path(second.adapters[0].path) / "adapter_model.safetensors").items():
        if "lora_A" in name:  # with the first one's start, a merge of both would be exact at half the rank
            other = load_file(Path(second.adapters[1].path) / "adapter_model.safetensors")[name]
            assert torch.cosine_similarity(one, other).abs().mean() < 0.6, name


def test_the_budget_is_kept_by_merging_the_past(model, tmp_path):
    steps = line(AdaptiveRank(ranks=[4], budget=6, energy=1.0), STAGES, Bench(model_path=model, root=tmp_path))
    for skill, lab in steps[1:]:
        assert [rank_of(Path(a.path)) for a in skill.adapters] == [2, 4]
        assert 0.0 < lab.notes["merge_error"] < 1.0 and lab.notes["merged_rank"] == 2
    assert steps[1][1].notes["merged"] == [4] and steps[2][1].notes["merged"] == [2, 4]


def test_ranks_are_probed_on_held_out_tasks(model, tmp_path):
    strategy = AdaptiveRank(ranks=[1, 4], probe_min_tasks=4, probe_epochs=1)
    lab = Bench(model_path=model, root=tmp_path)
    skill, lab = line(strategy, STAGES[:1], lab)[0]
    assert set(lab.notes["probe_losses"]) == {"1", "4"}
    losses = {int(rank): loss for rank, loss in lab.notes["probe_losses"].items()}
    assert lab.notes["rank"] == knee(losses, lab.notes["probe_baseline"], 0.05) == rank_of(Path(skill.adapters[0].path))
    few = AdaptiveRank(ranks=[1, 4])
    assert line(few, STAGES[:1], Bench(model_path=model, root=tmp_path / "few"))[0][1].notes["rank"] == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ranks": []}, "ranks"),
        ({"ranks": [2, 2]}, "ranks"),
        ({"budget": 16}, "budget=16 leaves no rank"),
        ({"tolerance": 1.0}, "tolerance=1.0"),
        ({"probe_epochs": -1}, "probe_epochs=-1"),
    ],
)
def test_settings_out_of_range_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        AdaptiveRank(**settings)
