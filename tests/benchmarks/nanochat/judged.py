"""A judged run of four steps on the texts of the conftest, and versions of train.py that differ by a line or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from looper.benchmarks.nanochat.benchmark import Device, NanoChat
from looper.benchmarks.research.budget import BudgetKind

TRAIN = NanoChat(device=Device.cpu).files()["train.py"]
FIRST = "import math\nimport time\n"
BEGIN = "    torch.manual_seed(SEED)\n"


def tiny(folder: Path, cache: Path, **values: Any) -> NanoChat:
    plain = {"budget_kind": BudgetKind.tokens, "budget": 8192, "context": 32, "vocabulary": 300, "device": Device.cpu}
    return NanoChat(**{"data": str(folder), "cache": str(cache), "validation_tokens": 1024, **plain, **values})


def edited(*changes: tuple[str, str]) -> str:
    code = TRAIN
    for old, new in changes:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code
