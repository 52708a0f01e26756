"""The weaker levels: Landlock with seccomp, and resource limits alone; paths are the host's own.

Landlock allows the same folders that bubblewrap shows and no socket; processes of other boxes can
be seen, not touched. Resource limits alone keep a command from using up the machine, not from
reading what its user can read, nor from the network. Unless looper is root, who gives commands to another user, they
may also end or trace that user's processes: a command that kills its launcher ends with it (`orphans.py`), one that
kills looper, or takes a process over by tracing, is not held.
"""

from __future__ import annotations

import marshal
import math
import os
import py_compile
import shutil
import signal
import sys
from pathlib import Path
from threading import Lock

from looper.errors import SandboxError
from looper.workspaces import launcher, orphans, seccomp
from looper.workspaces.bubblewrap import ETC, SYSTEM
from looper.workspaces.interpreter import Interpreter, interpreter
from looper.workspaces.process import Launch
from looper.workspaces.sandbox import IS_LINUX, Level, Limits, Place, environment, masked
from looper.workspaces.scratch import Scratch

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

_PIECE = 100_000  # the kernel takes no single argument above 128 KiB


class Confined:
    """Runs commands through `launcher.py`. Raises SandboxError if the kernel lacks Landlock."""

    def __init__(self, level: Level, scratch: Scratch, limits: Limits) -> None:
        self.level = level
        self._scratch = scratch
        self._limits = limits
        self._filter = b""
        if level is Level.landlock:
            if launcher.landlock_abi() < 1:
                raise SandboxError("this kernel has no Landlock; Linux 5.13 or newer has it (see lsm= at boot)")
            filters = seccomp.program(sockets=False)
            if filters is None:
                raise SandboxError(f"no system-call filter is known for {os.uname().machine}; use x86_64 or aarch64")
            self._filter = filters
        # Compiled once: the interpreter would compile the script anew for every command.
        self._starter = scratch.root / "seen" / f"launcher-{level.value}.pyc"
        py_compile.compile(launcher.__file__, cfile=str(self._starter), doraise=True)
        # root gives its id up only if an unprivileged user can reach the interpreter
        own = interpreter().base
        if scratch.owner is not None and scratch.reachable(own) is None:
            scratch.owner = None
        if scratch.owner is None:  # commands run as this user, who may kill the launcher
            orphans.adopt()
        self._pythons: dict[Interpreter, tuple[Path, Path, Path | None]] = {}
        self._guard = Lock()

    def launch(self, place: Place, python: Interpreter, command: str, seconds: float) -> Launch:
        """Return how to run a shell command in a box."""
        with self._guard:
            if python not in self._pythons:
                self._pythons[python] = self._python(python)
        base, bins, packages = self._pythons[python]
        path = [*([str(python.executable.parent)] if python.given else []), str(bins), "/usr/local/bin:/usr/bin:/bin"]
        env = environment(str(place.tmp), ":".join(path), str(packages or ""))
        if base != python.base and python.shared_library:
            env["LD_LIBRARY_PATH"] = str(base / "lib")
        spec = {
            "parent": os.getpid(),
            "owner": self._scratch.owner,
            "limits": self._rlimits(seconds),
            "rules": self._rules(place, python, base, bins, packages) if self.level is Level.landlock else None,
            "filter": self._filter,
            "cwd": str(place.root),
            "env": env,
            "command": command,
        }
        starter = getattr(sys, "_base_executable", "") or sys.executable
        text = marshal.dumps(spec).hex()
        pieces = [text[i : i + _PIECE] for i in range(0, len(text), _PIECE)]
        argv = [starter, "-I", "-S", str(self._starter), *pieces]
        return Launch(argv=argv, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, first_signal=signal.SIGTERM)

    def _rlimits(self, seconds: float) -> dict[str, int]:
        return {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": self._limits.files,
            "RLIMIT_NPROC": self._limits.processes + _others(self._scratch.owner),
            "RLIMIT_AS": self._limits.memory_mb << 20,
            "RLIMIT_FSIZE": self._limits.file_mb << 20,
            "RLIMIT_CPU": math.ceil(seconds) + 2,
        }

    def _rules(
        self, place: Place, python: Interpreter, base: Path, bins: Path, packages: Path | None
    ) -> list[tuple[str, str]]:
        """Return what Landlock allows: bubblewrap's folders, at their places on the host."""
        rules = [(str(path), "write") for path in (place.root, place.tmp)]
        rules += [(f"/dev/{name}", "device") for name in DEVICES]
        rules += [(f"/etc/{name}", "read") for name in (*ETC, "passwd", "group", "hosts", "nsswitch.conf")]
        rules += [("/proc", "read"), (str(bins), "read")]
        visible = [Path(path) for path in SYSTEM if not Path(path).is_symlink() and Path(path).is_dir()]
        if python.given:
            visible += [python.base, python.prefix]
        else:
            visible += [base / "lib", base / "bin" / python.program.name]
        hidden = masked(python, visible)
        if python.sealed:
            hidden += [base / path.relative_to(python.base) for path in python.sealed] + python.other_libraries
        for path in dict.fromkeys(visible):
            rules += _around(path, hidden)
        if packages is not None:  # the rules of links are those of their targets
            rules += [(str(packages), "read"), *((str(path.resolve()), "read") for path in packages.iterdir())]
        return rules

    def _python(self, python: Interpreter) -> tuple[Path, Path, Path | None]:
        """Return where the installation is seen, a folder with `python` and `python3`, and one with its packages."""
        base = self._scratch.reachable(python.base)
        if python.given and (base != python.base or self._scratch.reachable(python.prefix) != python.prefix):
            advice = "allow it with chmod o+x on its parent folders, or install bubblewrap"
            raise SandboxError(f"{python.executable} cannot be reached by an unprivileged user; {advice}")
        assert base is not None
        for folder in python.site_packages if base != python.base else []:
            self._scratch.hide(base / folder.relative_to(python.base))
        bins = self._scratch.root / "seen" / f"bin-{len(self._pythons)}-{self.level.value}"
        bins.mkdir(mode=0o755)
        program = python.executable if python.given else base / python.program.relative_to(python.base)
        for name in ("python", "python3"):
            (bins / name).symlink_to(program)
        return base, bins, self._packages(python.packages) if python.packages else None

    def _packages(self, packages: tuple[Path, ...]) -> Path:
        """Return a folder of links to packages; a module that the boxes' user cannot reach is copied."""
        folder = self._scratch.root / "seen" / f"packages-{len(self._pythons)}-{self.level.value}"
        folder.mkdir(mode=0o755)
        for path in packages:
            found = self._scratch.reachable(path) if path.is_dir() or self._scratch.owner is None else None
            if found is not None:
                (folder / path.name).symlink_to(found)
            elif path.is_file():
                shutil.copyfile(path, folder / path.name)
                (folder / path.name).chmod(0o644)
            else:
                advice = "allow it with chmod o+x on its parent folders, or install bubblewrap"
                raise SandboxError(f"{path} cannot be reached by an unprivileged user; {advice}")
        return folder


def _around(folder: Path, hidden: list[Path]) -> list[tuple[str, str]]:
    """Return rules for a folder but what is hidden in it: a rule holds for everything below its path."""
    if folder in hidden:
        return []
    if not any(path.is_relative_to(folder) for path in hidden):
        return [(str(folder), "read")]
    rules = [(str(folder), "list")]
    for child in sorted(folder.iterdir()):
        if not child.is_symlink():  # a link's target has its own rule, or none
            rules += _around(child, hidden)
    return rules


def _others(owner: int | None) -> int:
    """Count the threads that the user has already: the kernel's limit counts all of them."""
    if not IS_LINUX:
        return 512
    uid = os.geteuid() if owner is None else owner
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if folder.stat().st_uid == uid:
                    count += sum(1 for _ in (folder / "task").iterdir())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return count
