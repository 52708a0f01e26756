"""Compiled kernels that runs on a GPU start from: those that the bundled train.py left behind, and nobody else.

Compilation takes most of a minute and is the same for every version that changes no tensor's path: seeds, learning
rates, schedules. A run works on a copy, so that what a changed train.py writes reaches no other run.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from looper.records import digest_of

COMPILED = ".compiled"
"""Folder of a run with its kernels."""


@dataclass(frozen=True)
class Kernels:
    """Where the kernels of one machine, data and program lie."""

    folder: Path

    def lend(self, root: Path) -> None:
        """Copy them into a run's folder, if there are any."""
        if not self.folder.is_dir():
            return
        try:
            shutil.copytree(self.folder, root / COMPILED)
        except OSError:  # no room, or a part is gone: this run compiles for itself
            shutil.rmtree(root / COMPILED, ignore_errors=True)

    def keep(self, root: Path) -> None:
        """Take over what a run of the bundled train.py compiled, if nothing is there yet."""
        if self.folder.exists() or not (root / COMPILED).is_dir():
            return
        draft = self.folder.with_name(f"{self.folder.name}-{os.getpid()}")
        try:
            shutil.copytree(root / COMPILED, draft)
            draft.rename(self.folder)
        except OSError:  # no room, or another run was faster: the next one compiles for itself
            shutil.rmtree(draft, ignore_errors=True)


def kernels(prepared: Path, program: str, device: str) -> Kernels:
    """Return the kernels of a program on a device, beside the prepared data that it reads."""
    key = digest_of([program, device, version("torch"), platform.python_version()])[:16]
    return Kernels(prepared.with_name(f"{prepared.name}-kernels-{key}"))
