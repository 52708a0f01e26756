"""The bundled train.py, changed by the pack's own recipes; scored by arithmetic, where a test needs no training."""

from __future__ import annotations

import random
from pathlib import Path

import looper
from looper.memory.methods import pack, recipes

TRAIN = (Path(looper.__file__).parent / "benchmarks/research/train.py").read_text(encoding="utf-8")
PACK = {method.id: method for method in pack.load()}
GAINS = {"F.silu(self.gate(x))": 0.05, "WARMUP = 0.0 ": 0.02, "def rotate(": 0.04, ".square()": -0.03}
"""What a piece of code is worth in the arithmetic world."""


def with_method(name: str, code: str = TRAIN) -> str:
    return recipes.apply(PACK[name], code, pack=PACK.values())


def measure(code: str, seed: int = 1) -> float:
    """Return a score that depends on the code and, by a little, on the seed."""
    luck = random.Random(seed).gauss(0.0, 0.004)
    return 2.5 - sum(gain for piece, gain in GAINS.items() if piece in code) + luck
