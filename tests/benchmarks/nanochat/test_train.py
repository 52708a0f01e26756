"""train.py runs alone and prints its summary; its parts do what their names say."""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from tests.benchmarks.nanochat.conftest import TASK

SUMMARY = [
    "val_bpb", "training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps",
    "num_params_M", "depth",
]  # fmt: skip


def model_of(train: ModuleType) -> Any:
    """Make a model in which every weight matters: as it starts, some are 0."""
    torch.manual_seed(1)
    model = train.GPT(train.GPTConfig())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def run(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    for name in ("train.py", "prepare.py"):
        shutil.copy(TASK / name, folder)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    done = subprocess.run([sys.executable, "train.py"], cwd=folder, env=env, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    before, _, summary = done.stdout.partition("---\n")
    assert re.search(
        r"^the first \d+ steps took [\d.]+ s; what is above the others' is not counted$", before, re.MULTILINE
    )
    found = re.findall(r"^(\w+): +(\S+)$", summary, re.MULTILINE)
    assert [name for name, _ in found] == SUMMARY
    return dict(found)


def test_it_runs_as_a_program(tmp_path: Path, prepare: ModuleType, environment: dict[str, str]) -> None:
    found = run(tmp_path, environment)
    assert math.isfinite(float(found["val_bpb"])) and float(found["val_bpb"]) > 0
    steps, seconds = int(found["num_steps"]), float(found["training_seconds"])
    assert steps > prepare.UNCOUNTED_STEPS
    assert seconds * steps / (steps - prepare.UNCOUNTED_STEPS) >= prepare.TIME_BUDGET - 0.1  # of the printed tenths
    assert (found["mfu_percent"], found["peak_vram_mb"], found["depth"]) == ("nan", "0.0", "2")


@pytest.mark.gpu
@pytest.mark.slow
def test_it_runs_on_a_gpu(tmp_path: Path, environment: dict[str, str], prepare: ModuleType) -> None:
    found = run(tmp_path, environment | {"NANOCHAT_DEVICE": "cuda", "NANOCHAT_SECONDS": "5"})
    assert math.isfinite(float(found["val_bpb"])) and float(found["peak_vram_mb"]) > 0


def test_it_needs_nothing_of_looper_and_does_nothing_when_imported() -> None:
    for name in ("train.py", "prepare.py"):
        tree = ast.parse((TASK / name).read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {module for module in imported if module.startswith("looper")}
        assert isinstance(tree.body[-1], ast.If)  # the call of main
        assert not [node for node in tree.body[1:-1] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]


def test_it_learns(prepare: ModuleType, train: ModuleType) -> None:
    torch.manual_seed(1)
    model = train.GPT(train.GPTConfig())
    before = prepare.evaluate_bpb(model)
    assert before == pytest.approx(prepare.evaluate_bpb(lambda x: torch.zeros(*x.shape, 300)), rel=0.02)
    updating = list(train.optimisers(model))
    for step, (x, y) in enumerate(islice(prepare.batches(8), 20)):
        train.loss_of(model, x, y).backward()
        for optimiser in updating:
            optimiser.step(step / 20)
        model.zero_grad()
    assert prepare.evaluate_bpb(model) < before * 0.7


def test_every_parameter_has_one_optimiser(train: ModuleType) -> None:
    model = train.GPT(train.GPTConfig())
    muon, adam = train.optimisers(model)
    matrices = [p for group, _ in muon.groups for p in group]
    others = [p for group in adam.inner.param_groups for p in group["params"]]
    assert sorted(map(id, matrices + others)) == sorted(map(id, model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 2)[-2] for p in matrices} == {"query", "key", "value", "out", "gate", "up", "down"}


@pytest.mark.parametrize(("length", "window"), [(24, 8), (21, 8), (9, 8), (8, 8), (5, 8), (7, 1)])
def test_windows_are_what_a_mask_says(train: ModuleType, length: int, window: int) -> None:
    draw = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(2, 3, length, 4, generator=draw, requires_grad=True) for _ in range(3))
    back = torch.arange(length)[:, None] - torch.arange(length)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < window))
    found = train.attend(q, k, v, window)
    torch.testing.assert_close(found, expected)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        sparse = flex_attention(q.detach(), k.detach(), v.detach(), block_mask=train.sliding(window, length, "cpu"))
    torch.testing.assert_close(sparse, expected)
    weights = torch.randn(found.shape, generator=draw)
    gradients = (torch.autograd.grad((y * weights).sum(), (q, k, v)) for y in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_layers_take_their_windows_from_the_pattern(train: ModuleType) -> None:
    config = train.GPTConfig(depth=6, windows="SSSL", context=32, short_window=8)
    assert [config.window(layer) for layer in range(6)] == [8, 8, 8, 32, 8, 32]
    assert [config.has_values(layer) for layer in range(6)] == [False, True] * 3


def test_positions_are_relative(train: ModuleType) -> None:
    q, k = torch.randn(2, 1, 1, 1, 16).unbind()
    by = train.rotations(40, 16)
    turned_q, turned_k = (train.rotate(x.expand(1, 1, 40, 16), by) for x in (q, k))
    products = (turned_q @ turned_k.mT)[0, 0]  # (T, T)
    for distance in (0, 3, 17):
        along = products.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    assert products[20, 20].item() == pytest.approx((q * k).sum().item(), abs=1e-4)
    assert products[20].std() > 0.1  # and they matter


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (1, 32, 8)])
def test_updates_of_matrices_are_orthogonal(train: ModuleType, shape: tuple[int, ...]) -> None:
    g = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(g, full_matrices=False)
    found = train.orthogonal(g)
    assert found.shape == g.shape
    kept = torch.diagonal(u.mT @ found @ v.mT, dim1=-2, dim2=-1)[s > 0.05 * s.amax(-1, keepdim=True)]
    assert kept.min() > 0.6 and kept.max() < 1.3
    assert not train.orthogonal(torch.zeros(shape)).any()


def test_later_tokens_and_other_rows_change_nothing(train: ModuleType) -> None:
    model, tokens = model_of(train), torch.randint(300, (2, 32), generator=torch.Generator().manual_seed(1))
    whole = model(tokens)
    changed = tokens.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 300
    other = model(changed)
    torch.testing.assert_close(other[0, :20], whole[0, :20])
    torch.testing.assert_close(other[1], whole[1])
    assert (other[0, 20:] - whole[0, 20:]).abs().amax(-1).min() > 1e-3
    torch.testing.assert_close(model(tokens[:, :13]), whole[:, :13])
    changed[0] = tokens[0]
    changed[0, 3] = (tokens[0, 3] + 1) % 300
    assert (model(changed)[0, 31] - whole[0, 31]).abs().max() > 1e-4  # the long layers see all


def test_weights_are_handed_over_to_a_fresh_model(
    prepare: ModuleType, train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(train)
    monkeypatch.setenv("NANOCHAT_HANDOVER", str(tmp_path / "weights.pt"))
    assert math.isnan(prepare.evaluate_bpb(model))
    monkeypatch.delenv("NANOCHAT_HANDOVER")
    fresh = train.GPT(train.GPTConfig())
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    assert prepare.evaluate_bpb(fresh) == prepare.evaluate_bpb(model)


def test_rates_follow_the_time(train: ModuleType) -> None:
    assert [train.rate(progress) for progress in (0.0, 0.3, 0.5, 0.75, 1.0)] == [1, 1, 1, 0.5, 0]
    for progress, share in ((0.0, 1.0), (0.75, 0.125)):  # of the decay: its rate and the learning rate both fall
        matrix = torch.nn.Parameter(torch.ones(4, 4))
        matrix.grad = torch.zeros(4, 4)
        train.Muon([matrix], 0.1).step(progress)
        torch.testing.assert_close(matrix.data, torch.full((4, 4), 1 - 0.1 * train.WEIGHT_DECAY * share))


def test_operations_of_a_token(train: ModuleType) -> None:
    config = train.GPTConfig(depth=2, width=32, heads=2, context=32, short_window=8)
    matrices = 2 * (4 * 32 * 32 + 2 * 4 * 32 * 32) + 2 * 32 + 300 * 32  # one layer has a gate of 32 x 2
    assert train.flops_per_token(train.GPT(config)) == 6 * matrices + 12 * 32 * (8 + 32)


def test_a_batch_that_does_not_divide_is_said(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "TOTAL_BATCH", 100)
    with pytest.raises(SystemExit, match="TOTAL_BATCH is 100; it has to be a multiple of 64 tokens"):
        train.train(train.GPT(train.GPTConfig()))


@pytest.mark.slow
def test_the_loss_is_one_graph_for_the_compiler(prepare: ModuleType, train: ModuleType) -> None:
    model, (x, y) = model_of(train), next(prepare.batches(2))
    compiled = torch.compile(train.loss_of, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(model, x, y), train.loss_of(model, x, y))
    assert not [name for name in model.state_dict() if "_orig_mod" in name]
