"""What watches agent code from inside its process; the judge puts this beside train.py in the sandbox.

All of it is best effort: code that shares a process with its watcher can undo the watcher. What must hold whatever the
code does is done elsewhere: the sandbox keeps files, network and other runs away, and the score is computed on the host
from logits. A hit here ends the process at once, so that nothing after it can take it back.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")  # the sandbox has none, on purpose

ROOT = os.path.realpath(os.getcwd())  # noqa: PTH109 - pathlib's calls can be replaced more easily
ROOM = os.path.join(ROOT, ".judge")  # noqa: PTH118
STDLIB = os.path.realpath(sysconfig.get_path("stdlib"))
_PACKAGES = os.environ.get("PYTHONPATH", "")
_TREES = [STDLIB, _PACKAGES, os.environ.get("HOME", ""), "/proc", "/sys", "/dev", "/etc", "/usr/share/zoneinfo"]
READABLE = tuple(f"{os.path.realpath(path)}/" for path in _TREES if path)
if os.path.isdir(_PACKAGES):  # noqa: PTH112 - of links, where the sandbox has no mounts
    READABLE += tuple({os.path.realpath(entry.path) for entry in os.scandir(_PACKAGES)})
SEALED = tuple(os.path.realpath(path) for path in os.environ.get("JUDGE_SEALED", "").split(os.pathsep) if path)
"""Folders and files of a run without a sandbox that it may not read. Only these are watched there: compilers and GPU
drivers start processes and open files of their own."""
_INSIDE = tuple(f"{path}/" for path in SEALED)
STARTS = {"subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "pty.spawn"}
"""Audit events of a process that is started or replaced."""
REFUSED = 3
"""Exit code of a run in which a cheat was seen."""

_report = os.open(os.path.join(ROOM, "report.json"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # noqa: PTH118


def report(what: dict[str, Any]) -> None:
    """Write what the judge reads after the end; the last one counts."""
    data = json.dumps(what).encode()
    os.ftruncate(_report, 0)
    os.pwrite(_report, data, 0)


def refuse(cheat: str, reason: str, *, end: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """Report a cheat and end the process."""
    sys.stdout.flush()
    report({"cheat": cheat, "reason": reason})
    end(REFUSED)


def leave(*, end: Callable[[int], NoReturn] = os._exit) -> NoReturn:
    """End the process at once: taking an interpreter with torch apart takes half as long as starting one."""
    sys.stdout.flush()
    sys.stderr.flush()
    end(0)


def begin() -> None:
    """Watch from now on which files are opened and which processes are started."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _opened(*arguments)
    elif event in STARTS and not SEALED:
        refuse("process", f"train.py started a process ({event}); a run is one process")


def _opened(path: object, mode: str | None, flags: int) -> None:
    """Judge the opening of a file."""
    if not isinstance(path, str | bytes | os.PathLike):
        return
    place = os.path.realpath(os.fsdecode(path))
    if place.startswith(f"{ROOT}/"):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes and place == os.path.join(ROOT, "prepare.py"):  # noqa: PTH118
            refuse("prepare", "train.py opened prepare.py for writing; only train.py may change")
    elif SEALED:
        if (place in SEALED or place.startswith(_INSIDE)) and not _is_harmless("torch._"):  # a compiler reads sources
            refuse(
                "validation", f"train.py opened {place}, which holds validation data; data comes from batches() alone"
            )
    elif place.startswith(f"{STDLIB}/") and place.endswith((".py", ".pyc")):
        if not _is_harmless():
            refuse(
                "validation",
                f"train.py read {place} of the standard library, whose files may be data; data comes from batches() "
                "alone",
            )
    elif not place.startswith(READABLE):
        refuse("outside", f"train.py opened {place}, outside of its folder")


def _is_harmless(*more: str) -> bool:
    """Whether an import, or the printing of a warning or a traceback, opens the file: these show source lines.

    `more` are beginnings of further modules that may.
    """
    frame: FrameType | None = sys._getframe(3)
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        return True
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name in ("warnings", "traceback") or name.startswith(more):
            return True
        frame = frame.f_back
    return False
