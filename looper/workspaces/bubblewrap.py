"""The strongest level: every command in namespaces of its own, seeing only what commands need.

Seen are the system's programs and libraries, an interpreter, and the box: the checkout at /repo and
a private /tmp. Everything else (home folders, looper, its packages, other boxes, data) is not there.
"""

from __future__ import annotations

import os
import py_compile
import resource
import shutil
import subprocess
from functools import lru_cache
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import PycInvalidationMode
from threading import Lock

from looper.errors import SandboxError
from looper.workspaces import seccomp
from looper.workspaces.interpreter import Interpreter
from looper.workspaces.process import Launch
from looper.workspaces.sandbox import IS_LINUX, Level, Limits, Place, environment, masked
from looper.workspaces.scratch import Scratch

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = ("alternatives", "ld.so.cache", "localtime", "mime.types", "protocols", "services")
INSTALL = (
    "install it with apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora) "
    "or pacman -S bubblewrap (Arch)"
)
NAMESPACES = (
    "--unshare-user --uid 1000 --gid 1000 --unshare-ipc --unshare-pid --unshare-net --unshare-uts "
    "--unshare-cgroup-try --die-with-parent --new-session --cap-drop ALL --hostname box"
).split()
_FIRST_TO_GO = "echo 1000 2>/dev/null >/proc/self/oom_score_adj"  # should memory run out
_PACKAGES = "/packages"
_OWN_ETC = {
    "passwd": "root:x:0:0::/:/bin/false\nagent:x:1000:1000::/tmp:/bin/bash\n",
    "group": "root:x:0:\nagent:x:1000:\n",
    "hosts": "127.0.0.1 localhost box\n::1 localhost\n",
}


@lru_cache(maxsize=1)
def _version(program: str) -> tuple[int, ...]:
    words = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout.split()
    return tuple(int(part) for part in words[-1].split(".") if part.isdigit()) if words else ()


class Bubblewrap:
    """Runs commands with bwrap. Raises SandboxError if there is no bwrap."""

    level = Level.bubblewrap

    def __init__(self, scratch: Scratch, limits: Limits) -> None:
        program = shutil.which("bwrap")
        if not IS_LINUX or program is None:
            raise SandboxError(f"bubblewrap (bwrap) is not on PATH; {INSTALL if IS_LINUX else 'it needs Linux'}")
        self._scratch = scratch
        self._limits = limits
        self._start = [program, *NAMESPACES]
        if _version(program) >= (0, 8):
            self._start.append("--disable-userns")
        setpriv = shutil.which("setpriv")
        if scratch.owner is not None and setpriv is not None:
            owner = str(scratch.owner)
            self._start[:0] = [setpriv, "--reuid", owner, "--regid", owner, "--clear-groups", "--"]
        self._inputs: list[Path] = []
        filters = seccomp.program(sockets=True)
        if filters is not None:
            self._inputs = [scratch.root / "calls.bpf"]
            self._inputs[0].write_bytes(filters)
        etc = scratch.root / "seen" / "etc"
        etc.mkdir(mode=0o755, exist_ok=True)
        for name, text in _OWN_ETC.items():
            (etc / name).write_text(text)
            (etc / name).chmod(0o644)
        self._system = _system(etc)
        self._pythons: dict[Interpreter, tuple[list[str], str]] = {}
        self._guard = Lock()

    def launch(self, place: Place, python: Interpreter, command: str, seconds: float) -> Launch:
        """Return how to run a shell command in a box."""
        with self._guard:
            if python not in self._pythons:
                self._pythons[python] = self._python(python)
        seen, path = self._pythons[python]
        argv = [*self._start, *self._system, "--bind", str(place.shared), "/dev/shm", "--remount-ro", "/dev"]
        argv += ["--bind", str(place.tmp), "/tmp", "--bind", str(place.root), "/repo", *seen]
        argv += ["--remount-ro", "/", "--chdir", "/repo", "--info-fd", "{info}"]
        if self._inputs:
            argv += ["--seccomp", "{0}"]
        argv += [
            "--",
            "/bin/bash",
            "-c",
            f'{_FIRST_TO_GO}; {self._ulimit(seconds)} || exit 125; eval "$1"',
            "bash",
            command,
        ]
        env = environment("/tmp", path, _PACKAGES if python.packages else "")
        return Launch(argv=argv, env=env, inputs=self._inputs, reports_child=True)

    def _ulimit(self, seconds: float) -> str:
        wanted = [
            ("c", resource.RLIMIT_CORE, 0, 1),
            ("n", resource.RLIMIT_NOFILE, self._limits.files, 1),
            ("u", resource.RLIMIT_NPROC, self._limits.processes, 1),
            ("v", resource.RLIMIT_AS, self._limits.memory_mb << 20, 1024),
            ("f", resource.RLIMIT_FSIZE, self._limits.file_mb << 20, 1024),
            ("t", resource.RLIMIT_CPU, int(seconds) + 2, 1),
        ]
        words = ["ulimit"]
        for flag, kind, value, unit in wanted:
            hard = resource.getrlimit(kind)[1]
            words += [f"-{flag}", str((value if hard == resource.RLIM_INFINITY else min(value, hard)) // unit)]
        return " ".join(words)

    def _python(self, python: Interpreter) -> tuple[list[str], str]:
        """Return the options that show an interpreter, and the PATH to find it."""
        argv: list[str] = []
        visible = [Path("/usr")]
        target = str(python.executable)
        bins = "/python/bin"
        if python.given:
            for folder in dict.fromkeys((python.base, python.prefix)):
                if not folder.is_relative_to("/usr"):
                    argv += ["--ro-bind", str(self._seen(folder)), str(folder)]
                    visible.append(folder)
            bins = f"{python.executable.parent}:/python/bin"
        elif not python.base.is_relative_to("/usr"):
            base = self._seen(python.base)
            name = python.program.name
            argv += ["--ro-bind", str(base / "lib"), "/python/lib"]
            argv += ["--ro-bind", str(base / python.program.relative_to(python.base)), f"/python/bin/{name}"]
            for library in sorted((python.base / "lib").glob("libpython*.so.*")):  # found by its path of old
                argv += ["--ro-bind", str(base / "lib" / library.name), str(library)]
            packages = f"/python/lib/python{python.version}/site-packages"
            argv += ["--tmpfs", packages, "--remount-ro", packages]
            target = name
        names = {"python", "python3"} - {target}
        for name in sorted(names):
            argv += ["--symlink", target, f"/python/bin/{name}"]
        hidden = masked(python, visible)
        if python.sealed:
            hidden += [path for path in python.other_libraries if path not in hidden]
        for folder in hidden:
            argv += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
        for package in python.packages:
            argv += ["--ro-bind", str(self._seen(package.parent) / package.name), f"{_PACKAGES}/{package.name}"]
        inside = python.library if python.base.is_relative_to("/usr") else Path("/python/lib", python.library.name)
        return argv + self._seal(python, inside), f"{bins}:/usr/local/bin:/usr/bin:/bin"

    def _seal(self, python: Interpreter, library: Path) -> list[str]:
        """Return the options that put an empty text over every sealed source, and bytecode without documentation.

        The bytecode is marked as never to be compared with its source (PEP 552). A module that the installation
        keeps no bytecode of has no place to put it: imported, it is empty.
        """
        argv: list[str] = []
        room = self._scratch.root / "seen" / f"sealed-{len(self._pythons)}"
        room.mkdir(mode=0o755)
        blank = room / "blank"
        blank.touch(mode=0o644)
        for number, path in enumerate(python.sealed):
            place = library / path.relative_to(python.library)
            argv += ["--ro-bind", str(blank), str(place)]
            kept = cache_from_source(str(path))
            if Path(kept).is_file():
                code = room / f"{number}.pyc"
                unchecked = PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(path), str(code), path.name, True, 2, unchecked, quiet=1)
                argv += ["--ro-bind", str(code), str(place.parent / "__pycache__" / Path(kept).name)]
        return argv

    def _seen(self, folder: Path) -> Path:
        if not self._start[0].endswith("setpriv"):
            return folder
        found = self._scratch.reachable(folder)
        if found is None:
            raise SandboxError(f"{folder} cannot be shown to an unprivileged user; allow it with chmod o+rx")
        return found


def _system(etc: Path) -> list[str]:
    argv: list[str] = []
    for path in SYSTEM:
        if Path(path).is_symlink():
            argv += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).is_dir():
            argv += ["--ro-bind", path, path]
    for name in ETC:
        if Path("/etc", name).exists():
            argv += ["--ro-bind", os.path.realpath(f"/etc/{name}"), f"/etc/{name}"]
    for name in _OWN_ETC:
        argv += ["--ro-bind", str(etc / name), f"/etc/{name}"]
    return [*argv, "--dev", "/dev", "--proc", "/proc"]
