"""Compiled kernels: a run works on a copy of what the bundled train.py left, and only that one leaves any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from looper.benchmarks.nanochat.kernels import COMPILED, Kernels, kernels
from looper.workspaces.local import LocalWorkspace
from tests.benchmarks.nanochat.judged import FIRST, edited, tiny

WRITES = f"""from pathlib import Path
KERNEL = Path("{COMPILED}/kernel")
if KERNEL.exists():  # not where the model answers
    KERNEL.write_text(KERNEL.read_text() + "!")
    print(KERNEL.read_text())
"""
MAKES = f'from pathlib import Path\nPath("{COMPILED}").mkdir(exist_ok=True)\n'


def run_with(root: Path, text: str) -> Path:
    (root / COMPILED / "deep").mkdir(parents=True)
    (root / COMPILED / "deep" / "kernel").write_text(text)
    return root


def test_the_first_that_is_kept_stays_and_runs_get_copies(tmp_path: Path) -> None:
    held = Kernels(tmp_path / "data-kernels")
    empty = tmp_path / "empty"
    empty.mkdir()
    held.lend(empty)
    held.keep(empty)
    assert list(empty.iterdir()) == [] and not held.folder.exists()
    held.keep(run_with(tmp_path / "one", "first"))
    held.keep(run_with(tmp_path / "two", "second"))
    held.lend(empty)
    copy = empty / COMPILED / "deep" / "kernel"
    assert copy.read_text() == "first"
    copy.write_text("changed")
    assert (held.folder / "deep" / "kernel").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data-kernels", "empty", "one", "two"]


def test_what_cannot_be_copied_is_compiled_again(tmp_path: Path) -> None:
    held, root = Kernels(tmp_path / "held"), tmp_path / "run"
    root.mkdir()
    held.keep(run_with(tmp_path / "first", "whole"))
    (held.folder / "gone").symlink_to("nowhere")
    held.lend(root)
    assert list(root.iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    Kernels(tmp_path / "file" / "held").keep(run_with(tmp_path / "second", "nowhere to keep it"))
    assert (tmp_path / "file").read_text() == "no folder"


def test_they_are_of_one_program_and_one_device(tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = {kernels(data, program, device).folder for program in ("a", "b") for device in ("H100", "H200")}
    assert len(found) == 4 and {folder.parent for folder in found} == {tmp_path}


@pytest.mark.slow
def test_what_a_changed_program_writes_reaches_no_other_run(folder: Path, tmp_path: Path) -> None:
    held = Kernels(tmp_path / "held")
    held.keep(run_with(tmp_path / "earlier", ""))
    (held.folder / "kernel").write_text("as it was")
    judge = replace(tiny(folder, tmp_path / "cache")._judge(LocalWorkspace()), boxed=False, kernels=held)
    found = judge.measure(edited((FIRST, FIRST + WRITES)), 3)
    assert found.status == "ok" and "as it was!" in found.log
    assert (held.folder / "kernel").read_text() == "as it was"
    none = replace(judge, kernels=Kernels(tmp_path / "none"))
    assert none.measure(edited((FIRST, FIRST + MAKES)), 3).status == "ok"
    assert not (tmp_path / "none").exists()
