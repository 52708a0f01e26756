"""The Python that commands in a box find, and the folders it needs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from looper.errors import ConfigError, MachineError
from looper.workspaces.packages import closure

_ASK = (
    "import sys, json; print(json.dumps([sys.prefix, getattr(sys, 'base_prefix', sys.prefix),"
    " '%d.%d' % sys.version_info[:2], getattr(sys, '_base_executable', sys.executable)]))"
)


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python installation."""

    executable: Path
    """The program to start; of a virtual environment its own link."""
    prefix: Path
    """Its environment; the same as `base` unless it is virtual."""
    base: Path
    """The installation that it belongs to."""
    program: Path
    """The installation's own program, no link."""
    version: str
    """Major and minor version, e.g. `3.11`."""
    given: bool
    """Whether a task asked for it: then its packages are visible; looper's own are not."""
    packages: tuple[Path, ...] = ()
    """Files and folders of looper's own packages that commands can import all the same."""
    sealed: tuple[Path, ...] = ()
    """Sources of the installation's standard library whose text commands do not see."""

    @property
    def library(self) -> Path:
        """Folder of the standard library."""
        return self.base / "lib" / f"python{self.version}"

    @property
    def other_libraries(self) -> list[Path]:
        """Standard libraries of the system's other Pythons, which hold much the same text."""
        found = [path for root in ("/usr/lib", "/usr/local/lib") for path in Path(root).glob("python3*")]
        return sorted(path for path in found if path.is_dir() and path.resolve() != self.library.resolve())

    @property
    def site_packages(self) -> list[Path]:
        """Folders of the installation (not the environment) that hold installed packages."""
        names = [self.base / "lib" / f"python{self.version}" / "site-packages"]
        if self.base == Path("/usr"):
            names += [Path("/usr/lib/python3/dist-packages"), *Path("/usr/local/lib").glob("python3*/*-packages")]
        return [path for path in names if path.is_dir()]

    @property
    def shared_library(self) -> bool:
        """Whether the program loads a libpython from its own prefix."""
        return any((self.base / "lib").glob("libpython*"))


@lru_cache(maxsize=64)
def interpreter(executable: str = "", packages: tuple[str, ...] = (), sealed: tuple[str, ...] = ()) -> Interpreter:
    """Describe an interpreter; '' is the installation that looper runs on, without its packages but `packages`.

    Raises MachineError if the program cannot be run or a package is not installed, ConfigError for packages or
    sealed files beside a given program, whose own ones are visible.
    """
    if executable and (packages or sealed):
        raise ConfigError(f"a source has either python ({executable}) or packages and sealed files; leave out one")
    if packages or sealed:
        bare = interpreter()
        hidden = tuple(bare.library / name for name in sealed)
        return replace(bare, packages=closure(packages), sealed=hidden)
    if not executable:
        program = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
        base = Path(sys.base_prefix)
        version = sysconfig.get_python_version()
        return Interpreter(executable=program, prefix=base, base=base, program=program, version=version, given=False)
    try:
        done = subprocess.run([executable, "-S", "-E", "-c", _ASK], capture_output=True, text=True, timeout=30)
        prefix, base_prefix, version, program_path = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise MachineError(
            f"{executable} is not a Python that runs here ({error}); correct the task's `python`"
        ) from error
    path = Path(executable).absolute()
    if path.parent.parent.joinpath("pyvenv.cfg").exists():  # -S leaves sys.prefix alone on some versions
        prefix = str(path.parent.parent)
    return Interpreter(
        executable=path,
        prefix=Path(prefix),
        base=Path(base_prefix),
        program=Path(program_path).resolve(),
        version=version,
        given=True,
    )
