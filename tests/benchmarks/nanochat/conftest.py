"""A prepared folder of small texts, and both files of the task loaded over it in this process."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import looper.benchmarks.nanochat

TASK = Path(looper.benchmarks.nanochat.__file__).parent
SETTINGS = {"CONTEXT": "32", "VOCABULARY": "300", "DEVICE": "cpu", "SECONDS": "1.5", "VALIDATION_TOKENS": "1024"}
KNOBS = {"TOTAL_BATCH": 128, "DEVICE_BATCH": 2, "HEAD_WIDTH": 16, "HEADS": 2, "DEPTH": 4}


def texts() -> list[str]:
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefghij é\n", k=draw.randint(2, 6))) for _ in range(40)]
    return [" ".join(draw.choices(words, k=60)) for _ in range(200)]


def load(name: str, code: str) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    exec(compile(code, f"{name}.py", "exec"), module.__dict__)
    return module


def small(code: str) -> str:
    """Return a train.py with a tiny model."""
    for knob, value in KNOBS.items():
        lines = [line for line in code.splitlines() if line.startswith(f"{knob} = ")]
        assert len(lines) == 1, knob
        code = code.replace(lines[0], f"{knob} = {value}")
    return code


@pytest.fixture(scope="package")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a tiny run."""
    cache = tmp_path_factory.mktemp("prepared")
    return {f"NANOCHAT_{name}": value for name, value in {**SETTINGS, "CACHE": str(cache)}.items()}


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts as files; one is there twice, one is not UTF-8, one is hidden."""
    root = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(texts()):
        (root / f"{number:03}.txt").write_text(text, encoding="utf-8")
    (root / "copy.md").write_text(texts()[0], encoding="utf-8")
    (root / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (root / ".hidden").write_text("not taken", encoding="utf-8")
    return root


@pytest.fixture(scope="package")
def task(environment: dict[str, str], folder: Path) -> Iterator[tuple[ModuleType, ModuleType]]:
    """prepare.py, which has prepared the folder, and train.py with a tiny model."""
    before = {name: sys.modules.get(name) for name in ("prepare", "nanochat_train")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        prepare = load("prepare", (TASK / "prepare.py").read_text())
        patch.setattr(sys, "argv", ["prepare.py", "--data", str(folder)])
        prepare.main()
        yield prepare, load("nanochat_train", small((TASK / "train.py").read_text()))
    for name, module in before.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture(scope="package")
def prepare(task: tuple[ModuleType, ModuleType]) -> ModuleType:
    return task[0]


@pytest.fixture(scope="package")
def train(task: tuple[ModuleType, ModuleType]) -> ModuleType:
    return task[1]
