"""One child process: bounded output, a time limit, and nothing of it left when it has ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.workspaces import orphans

TIMED_OUT = 124
"""Exit code of a command that was stopped at its time limit (as timeout(1) has it)."""

_TICK, _WATCH = 0.5, 0.1


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a sandbox starts a command."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path | None = None
    inputs: Sequence[Path] = ()
    """Files opened for reading and inherited; `{0}` in argv stands for the first one's descriptor."""
    first_signal: int = signal.SIGKILL
    """Signal that ends it; a supervisor gets SIGTERM first, to end its descendants."""
    reports_child: bool = False
    """Whether `{info}` in argv is a descriptor to which the process group's innermost parent is reported."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a launch."""

    exit_code: int
    output: bytes
    cut: int
    """Bytes dropped from the middle; `head` bytes of the output come before them."""
    head: int
    timed_out: bool
    stopped: bool
    """Whether `watch` ended it."""


class _Output:
    """Head and tail of a stream; what lies between is counted and dropped."""

    def __init__(self, cap: int) -> None:
        self._half = max(cap // 2, 1)
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._kept = 0
        self._cut = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        self._head += data[:room]
        if rest := data[room:] if room > 0 else data:
            self._tail.append(rest)
            self._kept += len(rest)
            while self._kept - len(self._tail[0]) >= self._half:
                gone = len(self._tail.popleft())
                self._kept -= gone
                self._cut += gone

    def finish(self) -> tuple[bytes, int, int]:
        """Return (bytes, how many of them are the head, how many were dropped after the head)."""
        tail = b"".join(self._tail)
        extra = max(len(tail) - self._half, 0)
        return bytes(self._head) + tail[extra:], len(self._head), self._cut + extra


def run(
    launch: Launch, *, seconds: float, cap: int, watch: Callable[[], bool] | None = None, merge: bool = True
) -> Outcome:
    """Run a launch to its end or to its time limit.

    `cap` bounds the bytes kept. `watch`, asked up to ten times a second, returns True to stop the process.
    """
    output = _Output(cap)
    with contextlib.ExitStack() as stack:
        fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in launch.inputs]
        for fd in fds:
            stack.callback(os.close, fd)
        names = {str(i): str(fd) for i, fd in enumerate(fds)}
        info = -1
        if launch.reports_child:
            info, writer = os.pipe()
            stack.callback(os.close, info)
            names["info"] = str(writer)
            fds.append(writer)
        process = subprocess.Popen(
            [names.get(word[1:-1], word) if word[:1] == "{" else word for word in launch.argv],
            env=dict(launch.env),
            cwd=launch.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.DEVNULL,
            pass_fds=fds,
            start_new_session=True,
        )
        stack.enter_context(orphans.own(process.pid))
        if launch.reports_child:
            os.close(writer)
        timed_out, stopped = _pump(process, output, time.monotonic() + seconds, watch)
        _end(process, launch, kill=timed_out or stopped)
        if process.returncode < 0:  # a supervisor exits; one that was killed could not end what it started
            orphans.end()
        _drain(process, output)
        if launch.reports_child:
            _await_reported(info)
    code = process.returncode
    data, head, cut = output.finish()
    exit_code = TIMED_OUT if timed_out else 128 - code if code < 0 else code
    return Outcome(exit_code=exit_code, output=data, cut=cut, head=head, timed_out=timed_out, stopped=stopped)


def _pump(
    process: subprocess.Popen[bytes], output: _Output, deadline: float, watch: Callable[[], bool] | None
) -> tuple[bool, bool]:
    """Read until the process ends; return whether it ran out of time and whether `watch` stopped it."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    tick = _TICK if watch is None else _WATCH
    next_watch = time.monotonic() + _WATCH
    while True:
        now = time.monotonic()
        if now >= deadline:
            return True, False
        if watch is not None and now >= next_watch:
            if watch():
                return False, True
            after = time.monotonic()
            next_watch = after + max(_WATCH, 10 * (after - now))  # a large box is looked at less often
        if poller.poll(max(1.0, 1000 * min(deadline - now, tick))):
            data = os.read(fd, 1 << 16)
            if data:
                output.add(data)
                continue
            break
        if process.poll() is not None:  # it ended, something else still holds the pipe
            return False, False
    while True:  # the pipe is closed; the process may go on
        left = deadline - time.monotonic()
        if left <= 0:
            return True, False
        try:
            process.wait(timeout=min(left, tick))
            return False, False
        except subprocess.TimeoutExpired:
            if watch is not None and watch():
                return False, True


def _end(process: subprocess.Popen[bytes], launch: Launch, *, kill: bool) -> None:
    if kill and launch.first_signal != signal.SIGKILL:
        process.send_signal(launch.first_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    # Also after a regular end: whoever is left in the group is a background process.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _drain(process: subprocess.Popen[bytes], output: _Output) -> None:
    """Take what is left in the pipe, without waiting for a writer that escaped."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    left = 1 << 20
    with contextlib.suppress(BlockingIOError):
        while left > 0 and (data := os.read(fd, 1 << 16)):
            output.add(data)
            left -= len(data)
    process.stdout.close()


def _await_reported(info: int) -> None:
    """Wait until the sandbox's own init has ended, and with it every process in its namespace."""
    os.set_blocking(info, False)
    try:
        text = os.read(info, 1 << 12).decode()
    except BlockingIOError:
        return
    _, _, rest = text.partition('"child-pid":')
    digits = rest.strip().split("\n")[0].rstrip(" ,}")
    if not digits.isdigit() or not hasattr(os, "pidfd_open"):
        return
    try:
        fd = os.pidfd_open(int(digits))
    except ProcessLookupError:
        return
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(2000)
    finally:
        os.close(fd)
