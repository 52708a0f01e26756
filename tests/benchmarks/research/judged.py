"""A judged run of two steps, and versions of train.py that differ from the bundled one by a line or two."""

from __future__ import annotations

from looper.benchmarks.research.benchmark import Research
from looper.benchmarks.research.budget import BudgetKind
from looper.benchmarks.research.measurement import Measurement
from looper.workspaces.local import LocalWorkspace

TINY = Research(budget_kind=BudgetKind.steps, budget=2)
TRAIN = TINY.files()["train.py"]

FIRST = "import math\nimport time\n"
"""Where a version puts what runs when the file is run or imported."""
BEGIN = "    torch.set_num_threads(1)\n"
"""Where a version puts what runs as main begins."""
END = "    val_bpb = evaluate_bpb(model.eval())\n"


def edited(*changes: tuple[str, str]) -> str:
    """Replace texts that occur once in train.py."""
    code = TRAIN
    for old, new in changes:
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    return code


def at(place: str, line: str) -> str:
    """Put a line before a place in train.py; at the top, after the imports of the standard library."""
    if place == FIRST:
        return edited((FIRST, f"{FIRST}{line}\n"))
    return edited((place, f"    {line}\n{place}"))


def measured(train: str, workspace: LocalWorkspace, research: Research = TINY, seed: int = 2) -> Measurement:
    """Measure a version."""
    return research.measure(train, seed=seed, workspace=workspace)
