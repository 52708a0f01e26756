"""Boxes on this machine: a fresh checkout for every session, commands under the strongest sandbox there is."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from looper.errors import ConfigError, MachineError, PatchError, SandboxError, WorkspaceError
from looper.records import CommandResult, Source
from looper.workspaces import process
from looper.workspaces.bubblewrap import Bubblewrap
from looper.workspaces.confined import Confined
from looper.workspaces.interpreter import Interpreter, interpreter
from looper.workspaces.patch import diff
from looper.workspaces.pristine import Base, Bases
from looper.workspaces.sandbox import Level, Limits, Place, Sandbox
from looper.workspaces.scratch import Scratch, delete, unmount
from looper.workspaces.tree import Tree

ORDER = (Level.bubblewrap, Level.landlock, Level.rlimits)
_PROBE = "test -w . && git --version && python -c 'print(6 * 7)'"
_COMMAND_LIMIT = 100_000


class LocalBox:
    """One checkout. Commands see it as their current folder; `read`, `write` and `diff` happen on the host."""

    def __init__(self, place: Place, base: Base, python: Interpreter, yard: Yard, tmpfs: bool) -> None:
        self._place = place
        self._base = base
        self._python = python
        self._yard = yard
        self._tree = Tree(place.root, yard.scratch.owner)
        self._allowance = None if tmpfs else _size(place) + (yard.options.disk_mb << 20)
        self._full = False

    def run(self, command: str, *, seconds: float) -> CommandResult:
        """Run a shell command; never raises for what the command does."""
        options = self._yard.options
        if self._full:
            return CommandResult(exit_code=125, output=f"the box is stopped: more than {options.disk_mb} MiB written\n")
        command = command.encode("utf-8", "replace").decode()
        if "\0" in command or len(command.encode()) > _COMMAND_LIMIT:
            return CommandResult(exit_code=126, output=f"a command has no NUL and at most {_COMMAND_LIMIT} bytes\n")
        launch = self._yard.sandbox.launch(self._place, self._python, command, seconds)
        watch = None if self._allowance is None else self._over
        outcome = process.run(launch, seconds=seconds, cap=options.output_chars, watch=watch)
        self._full = outcome.stopped or self._over()
        head, tail = (part.decode("utf-8", "replace") for part in _split(outcome))
        middle = f"\n[... {outcome.cut} bytes cut ...]\n" if outcome.cut else ""
        end = f"\n[the box is full: more than {options.disk_mb} MiB written]\n" if self._full else ""
        code = outcome.exit_code or 125 if self._full else outcome.exit_code
        return CommandResult(exit_code=code, output=head + middle + tail + end, timed_out=outcome.timed_out)

    def read(self, path: str) -> str:
        """Return a file's text; what is not UTF-8 becomes U+FFFD."""
        return self._tree.read(path).decode("utf-8", "replace")

    def write(self, path: str, text: str) -> None:
        """Write a file, making its folders."""
        self._tree.write(path, text.encode("utf-8", "surrogateescape"))

    def read_bytes(self, path: str, *, limit: int) -> bytes:
        """Return a file's bytes. Raises WorkspaceError if there are more than `limit`."""
        return self._tree.read(path, limit)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file of bytes, making its folders."""
        self._tree.write(path, data)

    def diff(self) -> str:
        """Return everything changed since the base commit; ignored new files and bytecode are left out."""
        return diff(self._tree, self._base.entries, self._base.content, self._yard.scratch.root / "host")

    def _over(self) -> bool:
        return self._allowance is not None and _size(self._place) > self._allowance


def _split(outcome: process.Outcome) -> tuple[bytes, bytes]:
    if not outcome.cut:
        return outcome.output, b""
    return outcome.output[: outcome.head], outcome.output[outcome.head :]


def _size(place: Place) -> int:
    """Return the bytes on disk of everything in a box."""
    total = 0
    todo = [str(place.root), str(place.tmp), str(place.shared)]
    while todo:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as rows:  # gone, locked or too deep to name
            for row in rows:
                total += row.stat(follow_symlinks=False).st_blocks * 512 + 256
                if row.is_dir(follow_symlinks=False):
                    todo.append(row.path)
    return total


class Yard:
    """What the boxes of one workspace share: scratch folder, base commits, sandbox."""

    def __init__(self, options: LocalWorkspace) -> None:
        self.options = options
        self.scratch = Scratch(options.scratch)
        self.bases = Bases(self.scratch)
        self._numbers = itertools.count()
        self.reasons: dict[Level, str] = {}
        """Why a stronger level cannot be had."""
        try:
            self.sandbox = self._choose(options)
        except BaseException:
            self.scratch.close()
            raise

    def _choose(self, options: LocalWorkspace) -> Sandbox:
        limits = Limits(memory_mb=options.memory_mb, processes=options.processes, file_mb=options.file_mb)
        wanted = ORDER if options.isolation is Level.auto else (options.isolation,)
        for level in wanted:
            try:
                if level is Level.bubblewrap:
                    self.sandbox = Bubblewrap(self.scratch, limits)
                else:
                    self.sandbox = Confined(level, self.scratch, limits)
                self._probe()
            except SandboxError as error:
                self.reasons[level] = str(error)
            else:
                return self.sandbox
        name = options.isolation.value
        text = "; ".join(f"{level.value}: {reason}" for level, reason in self.reasons.items())
        raise SandboxError(f"workspace={name} cannot be had here: {text}; or choose workspace=auto")

    def _probe(self) -> None:
        """Run a command for real. Raises SandboxError with what it said."""
        with self.open(Source(name="probe", files={"probe.txt": "probe\n"}), "") as box:
            done = box.run(_PROBE, seconds=20)
        if done.exit_code != 0 or "42" not in done.output:
            said = " ".join(done.output.split())[-400:] or f"exit code {done.exit_code}"
            advice = ""
            if self.sandbox.level is Level.bubblewrap:
                advice = (
                    "; if user namespaces are forbidden, allow them (Ubuntu: sysctl -w "
                    "kernel.apparmor_restrict_unprivileged_userns=0; docker: --security-opt seccomp=unconfined)"
                )
            raise SandboxError(f"a probe failed ({said}){advice}")

    @contextlib.contextmanager
    def open(self, source: Source, patch: str) -> Iterator[LocalBox]:
        """Open a fresh box; removed at the end of the block."""
        python = interpreter(source.python, source.packages, source.sealed)
        base = self.bases.take(source)
        folder = self.scratch.root / "boxes" / f"{next(self._numbers)}-{os.urandom(8).hex()}"
        try:
            try:
                box = self._lay_out(base, folder, python, patch)
            except OSError as error:
                raise WorkspaceError(f"the checkout of {source.name} failed: {error}") from error
            yield box
        finally:
            _close(folder)
            self.bases.release(base)

    def _lay_out(self, base: Base, folder: Path, python: Interpreter, patch: str) -> LocalBox:
        folder.mkdir(mode=0o711)
        inodes = 100_000 + 4 * len(base.entries)
        tmpfs = self.scratch.size_limited(folder, self.options.disk_mb, inodes)
        root = base.lay_out(folder, self.scratch)
        place = Place(root=root, tmp=folder / "tmp", shared=folder / "shm")
        for path in (place.tmp, place.shared):
            path.mkdir(mode=0o700)
            if self.scratch.owner is not None:
                os.chown(path, self.scratch.owner, self.scratch.owner)
        base.verify(root)
        box = LocalBox(place, base, python, self, tmpfs)
        if patch.strip():
            _apply(box, place, patch, self.scratch.owner)
        return box


def _apply(box: LocalBox, place: Place, patch: str, owner: int | None) -> None:
    """Apply a patch inside the sandbox, where git may do no harm whatever the patch holds."""
    Tree(place.tmp, owner).write("looper.patch", patch.encode("utf-8", "surrogateescape"))
    done = box.run('git apply --whitespace=nowarn "$HOME/looper.patch"', seconds=60)
    (place.tmp / "looper.patch").unlink()
    if done.exit_code != 0:
        raise PatchError(f"the patch does not apply: {done.output.strip()}")


def _close(folder: Path) -> None:
    for path in (folder / "repo", folder):
        if path.is_mount():
            unmount(path)
    if folder.exists():
        delete(folder)


@lru_cache(maxsize=16)
def _yard(options: LocalWorkspace, process_id: int) -> Yard:
    return Yard(options)


_guard = threading.Lock()


_LIMITS = ("output_chars", "memory_mb", "processes", "file_mb", "disk_mb")


@dataclass(frozen=True, kw_only=True)
class LocalWorkspace:
    """Fresh checkouts on this machine.

    Enforced at every level: time, output, processes (as root: of an unprivileged user), memory of each process,
    size of each file. The bytes written by a session are bounded by a tmpfs of `disk_mb` where mounting
    is allowed (root), else by a check ten times a second that stops the box.
    With bubblewrap the checkout is at /repo and outputs do not depend on the host's paths.
    """

    isolation: Level = Level.auto
    """Level that is required; `auto` takes the strongest that works here."""
    output_chars: int = 8000
    """Bytes of a command's output that are kept: one half head, one half tail."""
    memory_mb: int = 4096
    """Address space of each process, MiB."""
    processes: int = 128
    """Processes and threads that a command may have at a time."""
    file_mb: int = 128
    """Size of a single file, MiB."""
    disk_mb: int = 512
    """Bytes that a session may write in all, MiB."""
    scratch: str = ""
    """Folder for checkouts; empty is the system's folder for temporary files."""

    def __post_init__(self) -> None:
        for name in _LIMITS:
            if getattr(self, name) <= 0:
                raise ConfigError(f"workspace.{name}={getattr(self, name)} must be above 0")

    def _started(self) -> Yard:
        if shutil.which("git") is None:
            raise MachineError("git is not on PATH; install git 2.30 or newer (e.g. apt-get install git)")
        with _guard:
            return _yard(self, os.getpid())

    @property
    def level(self) -> str:
        """Isolation in force: bubblewrap, landlock or rlimits. Raises SandboxError if it cannot be had."""
        return self._started().sandbox.level.value

    @property
    def identity(self) -> dict[str, str | int]:
        """Level and limits: what decides how commands end. Raises SandboxError if the level cannot be had."""
        limits = {name: int(getattr(self, name)) for name in _LIMITS}
        return {"level": self.level, **limits}

    @property
    def reasons(self) -> dict[str, str]:
        """Why stronger levels are not in force, level -> reason; empty if none is missing."""
        return {level.value: reason for level, reason in self._started().reasons.items()}

    def open(self, source: Source, patch: str = "") -> contextlib.AbstractContextManager[LocalBox]:
        """Open a fresh box at the source's base commit with `patch` applied.

        Raises WorkspaceError if the checkout is not clean or the patch does not apply.
        """
        return self._started().open(source, patch)


def probe_levels() -> dict[str, str]:
    """Try every level for real and return level -> '' or the reason that it cannot be had."""
    out: dict[str, str] = {}
    for level in ORDER:
        try:
            yard = Yard(LocalWorkspace(isolation=level))
        except MachineError as error:
            out[level.value] = str(error)
        else:
            yard.scratch.close()
            out[level.value] = ""
    return out
