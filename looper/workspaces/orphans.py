"""Processes of a command whose supervisor was killed: looper takes them in, and ends them.

Where commands run as looper's own user, one can kill the launcher that would end what it started. Its descendants then
become children of the nearest subreaper above, which is this process once `adopt` was called. They are told from all
other children by the one mark that a process cannot take off: it may gain no privileges.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from looper.workspaces import launcher

_started: set[int] = set()
_guard = Lock()
_adopts: list[int] = []


def adopt() -> None:
    """Make this process the parent of what its descendants leave behind; for all its life, and on Linux only."""
    if launcher.LINUX and os.getpid() not in _adopts and not _marked(os.getpid()):
        launcher.prctl(launcher.PR_SET_CHILD_SUBREAPER, 1)
        _adopts[:] = [os.getpid()]


@contextlib.contextmanager
def own(child: int) -> Iterator[None]:
    """Except a child from `end` while looper itself waits for it."""
    with _guard:
        _started.add(child)
    try:
        yield
    finally:
        with _guard:
            _started.discard(child)


def end(seconds: float = 4.0) -> None:
    """Kill all adopted processes and whatever they started, until none is left."""
    until = time.monotonic() + seconds
    while os.getpid() in _adopts and time.monotonic() < until:
        with _guard:
            left = [pid for pid in _children() if pid not in _started and _marked(pid)]
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if not left:
            return
        time.sleep(0.001)


def _children() -> list[int]:
    """Return this process's children."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.append(int(folder.name))
    return found


def _marked(pid: int) -> bool:
    """Whether a process may gain no privileges, as every command of a box."""
    with contextlib.suppress(OSError):
        return "\nNoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_text(errors="replace")
    return False
