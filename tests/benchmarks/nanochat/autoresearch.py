"""A repository of autoresearch's shape, small enough to run in no time: its score follows from two constants."""

from __future__ import annotations

import subprocess
from pathlib import Path

from looper.benchmarks.nanochat.benchmark import NanoChat

PREPARE = '''"""Data and score. Do not modify."""
TIME_BUDGET = 1


def evaluate_bpb(lr, luck):
    return 1.0 + (lr - 0.1) ** 2 + luck
'''
TRAIN = '''"""Train."""
import os
import random

from prepare import TIME_BUDGET, evaluate_bpb

LR = 0.04
DEPTH = 8
val_bpb = evaluate_bpb(LR, random.Random(os.environ["AUTORESEARCH_SEED"]).gauss(0.0, 1e-5))
print("step 00000 (0.0%) | loss: 9.0", end="\\r")
print()
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {TIME_BUDGET:.1f}")
print("peak_vram_mb:     2048.0")
print("num_steps:        953")
print(f"depth:            {DEPTH}")
'''
FILES = {"prepare.py": PREPARE, "train.py": TRAIN, "program.md": "# The user's own rules\n"}


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=u", "-c", "user.email=u@localhost", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path) -> Path:
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "progress.png").write_bytes(b"\x89PNG\xff")
    git(folder, "init", "--quiet", "--initial-branch=master")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return folder


def option(folder: Path, **values: float) -> NanoChat:
    return NanoChat(**{"repo": str(folder), "budget": 1.0, "limit_seconds": 60.0, **values})  # type: ignore[arg-type]
