"""Runs without a sandbox, in a folder of their own: for GPUs, whose drivers no box shows, and for users' checkouts.

A run has its user's rights and the network. What is kept from it are secrets of the environment, and time beyond its
limit: the whole process group ends with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from looper.errors import MachineError, WorkspaceError
from looper.records import CommandResult, Source

OUTPUT_CHARS = 200_000
"""Characters of the end of an output that are kept."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class Folder:
    """A box that is only a folder."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root = root
        self._python = python

    def run(self, command: str, *, seconds: float) -> CommandResult:
        """Run a shell command in the folder; `python` is the interpreter that the folder was opened with."""
        env = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
        env["PATH"] = f"{self._python.parent}{os.pathsep}{env.get('PATH', '')}"
        env.pop("PYTHONPATH", None)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        tail = _Tail(process.stdout)
        timed_out = False
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # also what a run that ended left behind
            process.wait()
        code = process.returncode
        return CommandResult(
            exit_code=124 if timed_out else 128 - code if code < 0 else code, output=tail.text(), timed_out=timed_out
        )

    def read(self, path: str) -> str:
        """Return a file's text."""
        return self._place(path).read_text(encoding="utf-8", errors="replace")

    def write(self, path: str, text: str) -> None:
        """Write a file, making its folders."""
        self.write_bytes(path, text.encode())

    def read_bytes(self, path: str, *, limit: int) -> bytes:
        """Return a file's bytes. Raises WorkspaceError for more than `limit`, or where it is no file of the folder."""
        try:
            with os.fdopen(os.open(self._place(path), os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise WorkspaceError(f"{path}: is no regular file")
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(path) from error
        except (OSError, RuntimeError) as error:  # the latter is a loop of links
            raise WorkspaceError(f"{path}: cannot be read: {error}") from error
        if len(data) > limit:
            raise WorkspaceError(f"{path}: is larger than the limit of {limit} bytes")
        return data

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file of bytes, making its folders; who reads it meanwhile sees all of it or what was there before."""
        place = self._place(path)
        draft = place.with_name(f"{place.name}.draft")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(place)
        except OSError as error:
            raise WorkspaceError(f"{place}: cannot be written ({error}); free space there or set TMPDIR") from error

    def diff(self) -> str:
        """Refuse: nobody edits here. Raises WorkspaceError."""
        raise WorkspaceError("a run outside of the sandbox has no diff: sessions take place in boxes")

    def _place(self, path: str) -> Path:
        place = (self.root / path).resolve()
        if not place.is_relative_to(self.root):
            raise WorkspaceError(f"{path}: leads outside of the run's folder")
        return place


class _Tail:
    """Reads a stream to its end in a thread, and keeps the end of it."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream, self._lines, self._size = stream, deque[bytes](), 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._stream.fileno(), 1 << 16):
            self._lines.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._lines[0]) > OUTPUT_CHARS:
                self._size -= len(self._lines.popleft())

    def text(self) -> str:
        """Return what was kept; a process that fled with the other end is not waited for."""
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._stream.close()
        return b"".join(self._lines)[-OUTPUT_CHARS:].decode("utf-8", "replace")


class Outside:
    """Makes such folders; what it gives is used as a workspace's boxes are."""

    def __init__(self, python: Path | None = None) -> None:
        self._python = python or Path(sys.executable)
        self.level = "none"
        self.identity: Mapping[str, str] = {"level": "none"}
        self.reasons: Mapping[str, str] = {}

    @contextlib.contextmanager
    def open(self, source: Source, patch: str = "") -> Iterator[Folder]:
        """Lay a source's files out in a new folder, removed at the end of the block."""
        if patch.strip():
            raise WorkspaceError("a run outside of the sandbox takes files, no patch")
        try:
            root = Path(tempfile.mkdtemp(prefix="looper-run-")).resolve()
        except OSError as error:
            raise MachineError(f"no folder can be made for a run ({error}); free some space or set TMPDIR") from error
        try:
            folder = Folder(root, self._python)
            for path, text in source.files.items():
                folder.write(path, text)
            yield folder
        finally:
            shutil.rmtree(root, ignore_errors=True)
