"""The bundled research task in this process: prepare.py loaded once, with a budget of 20 small steps."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import looper.benchmarks.research

TASK = Path(looper.benchmarks.research.__file__).parent
STEPS = 20
SMALL = {"WIDTH": 32, "BATCH_SIZE": 2}


@cache
def prepared() -> ModuleType:
    """Load prepare.py under its own name, as train.py imports it."""
    spec = importlib.util.spec_from_file_location("prepare", TASK / "prepare.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["prepare"] = importlib.util.module_from_spec(spec)
    os.environ["RESEARCH_TOKENS"] = str(STEPS * SMALL["BATCH_SIZE"] * 64)
    try:
        spec.loader.exec_module(module)
    finally:
        del os.environ["RESEARCH_TOKENS"]
    return module


def small(code: str) -> str:
    """Make the model tiny by its knobs."""
    for name, value in SMALL.items():
        code, changed = re.subn(rf"^{name} = \d+$", f"{name} = {value}", code, flags=re.MULTILINE)
        assert changed == 1, name
    return code


def module_of(code: str) -> ModuleType:
    """Import a version of train.py."""
    prepared()
    module = sys.modules["train_under_test"] = ModuleType("train_under_test")
    exec(compile(code, "train.py", "exec"), module.__dict__)
    return module
