"""The bundled train.py runs alone, prints its summary, keeps to the budget, and is scored on files it never saw."""

from __future__ import annotations

import ast
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainable import STEPS, TASK, module_of, prepared, small

SUMMARY = [
    "val_bpb", "training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps",
    "num_params_M", "depth",
]  # fmt: skip


def run(folder: Path, tokens: int, seed: int) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"RESEARCH_TOKENS": str(tokens), "RESEARCH_SEED": str(seed)}
    done = subprocess.run([sys.executable, "train.py"], cwd=folder, env=env, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    _, _, summary = done.stdout.partition("---\n")
    found = re.findall(r"^(\w+): +(\S+)$", summary, re.MULTILINE)
    assert [name for name, _ in found] == SUMMARY
    return dict(found)


@pytest.mark.slow
def test_it_runs_as_a_program_and_repeats(tmp_path: Path) -> None:
    for name in ("train.py", "prepare.py"):
        shutil.copy(TASK / name, tmp_path)
    first = run(tmp_path, 5 * 512 + 100, 1)
    assert (first["num_steps"], first["depth"], first["mfu_percent"]) == ("5", "2", "nan")
    assert 3.0 < float(first["val_bpb"]) < 8.1
    assert run(tmp_path, 5 * 512, 1)["val_bpb"] == first["val_bpb"]


def test_it_needs_nothing_of_looper_and_does_nothing_when_imported() -> None:
    for name in ("train.py", "prepare.py"):
        tree = ast.parse((TASK / name).read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {module for module in imported if module.startswith("looper")}
    body = ast.parse((TASK / "train.py").read_text()).body
    assert isinstance(body[-1], ast.If)  # the call of main
    harmless = ast.Import | ast.ImportFrom | ast.Assign | ast.FunctionDef | ast.ClassDef | ast.Expr
    assert all(isinstance(node, harmless) for node in body[:-1])
    assert [node for node in body if isinstance(node, ast.Expr)] == body[:1]  # the docstring


def test_training_takes_the_budget_and_no_more_and_learns() -> None:
    train = module_of(small((TASK / "train.py").read_text()))
    torch.manual_seed(1)
    model = train.GPT(train.GPTConfig())
    before = prepared().evaluate_bpb(model)
    assert 7.5 < before < 8.2  # nearly an even bet on 256 bytes
    assert train.train(model) == STEPS
    assert prepared().evaluate_bpb(model) < before - 0.3


def test_batches_are_the_seeds_and_end_with_the_budget() -> None:
    prepare = prepared()
    first, again, other = (list(prepare.batches(4, seed=seed, budget=1000)) for seed in (1, 1, 2))
    assert len(first) == 1000 // (4 * prepare.CONTEXT)
    for (x, y), (x2, _), (x3, _) in zip(first, again, other, strict=True):
        assert x.shape == y.shape == (4, prepare.CONTEXT)
        assert torch.equal(x[:, 1:], y[:, :-1])
        assert torch.equal(x, x2) and not torch.equal(x, x3)


def test_no_validation_file_is_trained_on() -> None:
    corpus = prepared().corpus()
    train, validation = (split.numpy().tobytes() for split in (corpus.train, corpus.validation))
    files = [text for text in validation.split(b"\0") if len(text) > 300]
    assert len(files) > 20 and 0.03 < len(validation) / len(train) < 0.3
    assert not [text[:60] for text in files if text in train]


def test_the_score_is_bits_per_byte() -> None:
    prepare = prepared()
    assert prepare.evaluate_bpb(lambda x: torch.zeros(*x.shape, 256)) == pytest.approx(8.0)

    def mostly_ascii(x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(*x.shape, 256)
        scores[..., :128] = math.log(3)
        return scores

    all_ascii, none = 7 + math.log2(4 / 3), 9.0  # bits of a byte inside and outside ASCII
    assert all_ascii - 1e-6 < prepare.evaluate_bpb(mostly_ascii) < 0.98 * all_ascii + 0.02 * none
    with pytest.raises(ValueError, match=r"shape \(128, 64\); it has to be \(128, 64, 256\)"):
        prepare.evaluate_bpb(lambda x: x.float())
