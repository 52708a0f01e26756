"""Finding the Python versions of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from looper.errors import MachineError

Version = tuple[int, int]


def _candidates() -> Iterator[tuple[Version, Path]]:
    """Yield programs and the version they should be: the one looper runs on, pyenv's, those on PATH."""
    yield sys.version_info[:2], Path(getattr(sys, "_base_executable", "") or sys.executable)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for folder in sorted((root / "versions").glob("3.*")):
        if match := re.match(r"3\.(\d+)\.", folder.name):
            yield (3, int(match[1])), folder / "bin" / "python"
    for minor in range(6, 16):
        if program := shutil.which(f"python3.{minor}"):
            yield (3, minor), Path(program)


@lru_cache(maxsize=1)
def interpreters() -> dict[Version, Path]:
    """Return one working interpreter per version of Python 3."""
    found: dict[Version, Path] = {}
    for version, program in _candidates():
        if version in found or not program.is_file():
            continue
        code = "import sys; print(*sys.version_info[:2])"
        # pyenv's shims are found under every version's name, but run only for the versions that are switched on
        answer = subprocess.run([program, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.split() == [str(number) for number in version]:
            found[version] = program
    return dict(sorted(found.items()))


def nearest_interpreter(wanted: str) -> tuple[str, Path]:
    """Return version and path of the wanted Python (`3.9`), else of the nearest one, the newer of two as near.

    Raises MachineError if there is none within three minor versions.
    """
    major, minor = map(int, wanted.split(".")[:2])
    near = sorted((abs(version[1] - minor), -version[1]) for version in interpreters() if version[0] == major)
    if not near or near[0][0] > 3:
        have = ", ".join(f"{a}.{b}" for a, b in interpreters()) or "none"
        raise MachineError(
            f"no Python near {wanted}; this machine has {have}: install it (`uv python install {wanted}` and put its "
            f"folder on PATH, or `pyenv install {wanted}`)"
        )
    version = (major, -near[0][1])
    return f"{version[0]}.{version[1]}", interpreters()[version]
