"""What the levels of isolation have in common: places, limits, environment."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from looper.workspaces.interpreter import Interpreter
from looper.workspaces.process import Launch


class Level(Enum):
    """Isolation of commands, the strongest first; `auto` takes the strongest that the machine allows."""

    auto = "auto"
    bubblewrap = "bubblewrap"
    landlock = "landlock"
    rlimits = "rlimits"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one command may use."""

    memory_mb: int
    """Address space of each process, MiB."""
    processes: int
    """Processes and threads at a time."""
    file_mb: int
    """Size of a single file, MiB."""
    files: int = 1024
    """Open files of each process."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folders of one box on the host."""

    root: Path
    """The checkout."""
    tmp: Path
    """Its own /tmp and home, kept between commands."""
    shared: Path
    """Its own /dev/shm."""


class Sandbox(Protocol):
    """One level of isolation."""

    level: Level

    def launch(self, place: Place, python: Interpreter, command: str, seconds: float) -> Launch:
        """Return how to run a shell command in a box."""
        ...


def environment(home: str, path: str, packages: str = "") -> dict[str, str]:
    """Return the environment of commands: the same on every machine, apart from paths.

    `packages` is a folder that Python searches besides its own, '' for none.
    """
    return {
        **({"PYTHONPATH": packages} if packages else {}),
        "PATH": path,
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "USER": "agent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_AUTHOR_NAME": "agent",
        "GIT_AUTHOR_EMAIL": "agent@localhost",
        "GIT_COMMITTER_NAME": "agent",
        "GIT_COMMITTER_EMAIL": "agent@localhost",
        "GIT_PAGER": "cat",
    }


def own_code() -> list[Path]:
    """Return the folders with looper and the packages it runs on: no command may read them."""
    paths = sysconfig.get_paths()
    package = Path(__file__).resolve().parent.parent
    return [package, *{Path(paths["purelib"]).resolve(), Path(paths["platlib"]).resolve()}]


def masked(python: Interpreter, visible: list[Path]) -> list[Path]:
    """Return the folders below `visible` ones that commands must not see all the same."""
    hidden = own_code()[:1]
    # The packages of an environment that a task brings are the task's; those that looper runs on are not.
    theirs = [python.prefix] if python.given else []
    hidden += [path for path in own_code()[1:] if not any(path.is_relative_to(p) for p in theirs)]
    if not (python.given and python.prefix == python.base):
        hidden += python.site_packages
    return sorted({path for path in hidden if path.is_dir() and any(path.is_relative_to(v) for v in visible)})


IS_LINUX = sys.platform.startswith("linux")
"""Whether the kernel's own sandboxes can be had."""
