"""Virtual environments for commits of a repository: its dependencies, with the checkout as the package itself."""

from __future__ import annotations

import csv
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from looper.benchmarks import checkout_imports
from looper.benchmarks.interpreters import nearest_interpreter
from looper.errors import MachineError
from looper.records import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

MARKER = "environment.json"
"""What was built, written last: an environment without it is not complete and is built anew."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides an environment."""

    repository: Path
    """Git repository of the package under test."""
    name: str
    """Name of the repository, `owner/name`."""
    commit: str
    """Commit whose metadata names the dependencies."""
    release: str
    """Version that the package shall report, e.g. `5.4.0`."""
    python: str
    """Wanted version of Python, e.g. `3.9`; the nearest one is taken."""
    pins: tuple[str, ...]
    """Requirements that are installed first."""
    before: tuple[str, ...] = ()
    """Commands for the exported tree before it is built; `sed -i` only."""
    newest: str
    """Date (YYYY-MM-DD): nothing published later is installed."""

    @property
    def digest(self) -> str:
        """Content address, without the repository's place; the start-up code is part of what is built."""
        code = Path(checkout_imports.__file__).read_text()
        fields = [self.name, self.commit, self.release, self.python, self.pins, self.before, self.newest, code]
        return digest_of(fields)


def interpreter(recipe: Recipe, folder: Path) -> Path:
    """Return the Python of the recipe's environment under `folder`; build it if it is not there.

    The environment holds the pinned packages, then what the commit's own metadata asks for, and the package's
    metadata and commands, but not its code: Python imports that from the checkout it is started in, so that all
    sessions share one read-only environment.

    Raises MachineError if there is no fitting Python, no `uv`, or if the installation fails.
    """
    home = (folder / recipe.name.replace("/", "__") / f"{recipe.commit[:12]}-{recipe.digest[:8]}").absolute()
    python = home / "bin" / "python"
    if _is_built(recipe, home):
        return python
    home.parent.mkdir(parents=True, exist_ok=True)
    with _lock(home.with_suffix(".lock")):
        if not _is_built(recipe, home):
            log.info("building the environment of %s at %s", recipe.name, recipe.commit[:12])
            shutil.rmtree(home, ignore_errors=True)
            _build(recipe, home, python)
    return python


def _is_built(recipe: Recipe, home: Path) -> bool:
    try:
        return bool(json.loads((home / MARKER).read_text())["digest"] == recipe.digest)
    except (FileNotFoundError, KeyError, json.JSONDecodeError):
        return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock file: the jobs of a sweep build an environment once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise MachineError("environments are built with uv, which is not installed: pip install '.[swe]'")
    return found


def _call(command: Sequence[str | Path], recipe: Recipe, **environment: str) -> str:
    """Run a step of the build and return its output."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise MachineError(
            f"the environment of {recipe.name} at {recipe.commit[:12]} could not be built: "
            f"{' '.join(map(str, command[:4]))} ... exited with {done.returncode}:\n{tail}"
        )
    return done.stdout


def _build(recipe: Recipe, home: Path, python: Path) -> None:
    version, base = nearest_interpreter(recipe.python)
    uv = _uv()
    _call([uv, "venv", "--quiet", "--no-project", "--python", base, home], recipe)
    # copies, not hard links: nothing that happens to an environment may reach uv's cache
    install = (uv, "pip", "install", "--python", python, "--exclude-newer", recipe.newest, "--link-mode", "copy")
    if recipe.pins:
        _call([*install, *recipe.pins], recipe)
    with tempfile.TemporaryDirectory(prefix="looper-build-") as scratch:
        tree = Path(scratch).resolve() / "tree"
        _export(recipe, tree)
        written = frozenset(tree.rglob("*"))  # a build may put what it generates into the tree itself
        _call([*install, tree], recipe, SETUPTOOLS_SCM_PRETEND_VERSION=recipe.release)
        site = next((home / "lib").glob("python3*")) / "site-packages"
        _leave_code_to_checkout(site, tree, written)
    freeze = _call((uv, "pip", "freeze", "--python", python), recipe).splitlines()
    packages = [line for line in freeze if "==" in line]
    done: Mapping[str, object] = {
        "digest": recipe.digest,
        "repository": recipe.name,
        "commit": recipe.commit,
        "release": recipe.release,
        "wanted_python": recipe.python,
        "python": version,
        "packages": packages,
    }
    temporary = home / f"{MARKER}.new"
    temporary.write_text(json.dumps(done, indent=1))
    temporary.replace(home / MARKER)


def _export(recipe: Recipe, tree: Path) -> None:
    """Write the commit's tree into a folder and run what the spec does to it before it is installed."""
    tree.mkdir()
    archive = tree.with_suffix(".tar")
    git = ("git", "-c", "safe.directory=*", "-C", recipe.repository)
    _call([*git, "archive", "--format=tar", "-o", archive, recipe.commit], recipe)
    _call(["tar", "-xf", archive, "-C", tree], recipe)
    for command in recipe.before:
        if not command.startswith("sed -i "):
            raise MachineError(f"{recipe.name}: the spec's step {command!r} is not supported; only `sed -i` is")
        _call(["sh", "-c", f'cd "$1" && {command}', "sh", tree], recipe)


def _leave_code_to_checkout(site: Path, tree: Path, written: frozenset[Path]) -> None:
    """Take the code of the package under test out of `site`, keep its metadata, and hook the checkout in.

    Raises MachineError if the tree's packages are not where they can be found again.
    """
    infos = [url.parent for url in site.glob("*.dist-info/direct_url.json") if tree.as_uri() in url.read_text()]
    if len(infos) != 1:
        raise MachineError(f"{site}: expected one installed package from the checkout, found {len(infos)}")
    with (infos[0] / "RECORD").open(newline="") as file:
        installed = [Path(row[0]) for row in csv.reader(file) if row]
    code = [p for p in installed if ".." not in p.parts and not p.parts[0].endswith((".dist-info", ".data"))]
    tops = sorted({p.parts[0] for p in code})
    source = next((name for name in ("src", ".") if any((tree / name / top).exists() for top in tops)), "")
    if not source:
        raise MachineError(f"{site}: the packages {', '.join(tops)} are neither in the checkout's root nor in src")
    for path in code:
        if tree / source / path not in written and path.suffix == ".py":
            kept = site / "checkout_generated" / path
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(site / path, kept)
    for top in tops:
        place = site / top
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.copy(checkout_imports.__file__, site / "checkout_imports.py")
    line = f"import checkout_imports; checkout_imports.start({source!r}, {tops!r})\n"
    (site / "checkout_imports.pth").write_text(line)
