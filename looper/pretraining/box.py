"""A box in memory for the few commands that oracle sessions use: a thousand times faster than a sandbox.

Pretraining needs some hundred thousand sessions. What this box prints is byte for byte what a real
checkout under a real sandbox prints; a test plays the same sessions in both and compares.
"""

from __future__ import annotations

import difflib
import importlib.abc
import importlib.machinery
import io
import re
import sys
import unittest
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from types import CodeType, ModuleType

from looper.errors import WorkspaceError
from looper.records import CommandResult

TEST_COMMAND = "python -m unittest -q 2>&1 | tail -1"
"""The command that runs the visible tests in oracle sessions."""

_GREP = re.compile(r'^git grep -n "([^"\\$`\[\]*.^]+)"$')


class MemoryBox:
    """A checkout as a dictionary; runs `git grep -n "plain text"` and TEST_COMMAND, nothing else."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._base = dict(files)
        self.files = dict(files)

    def run(self, command: str, *, seconds: float) -> CommandResult:
        """Run one of the known commands. Raises WorkspaceError for any other."""
        found = _GREP.match(command)
        if found:
            return self._grep(found[1])
        if command == TEST_COMMAND:
            return CommandResult(exit_code=0, output=run_tests(self.files) + "\n")
        raise WorkspaceError(f"the box in memory cannot run {command!r}; it knows git grep -n and {TEST_COMMAND!r}")

    def read(self, path: str) -> str:
        """Return a file's text."""
        if path in self.files:
            return self.files[path]
        prefix = path.rstrip("/") + "/"
        if any(name.startswith(prefix) for name in self.files):
            raise IsADirectoryError(path)
        raise FileNotFoundError(path)

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self.files[path] = text

    def read_bytes(self, path: str, *, limit: int) -> bytes:
        """Return a file's bytes."""
        data = self.read(path).encode()
        if len(data) > limit:
            raise WorkspaceError(f"{path}: has {len(data)} bytes, more than the limit of {limit}")
        return data

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file of UTF-8."""
        self.write(path, data.decode())

    def diff(self) -> str:
        """Return the change as a unified diff (without git's index lines)."""
        out: list[str] = []
        for path in sorted(self._base | self.files):
            before, after = self._base.get(path, ""), self.files.get(path, "")
            if before != after:
                lines = difflib.unified_diff(
                    before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}"
                )
                out += [f"diff --git a/{path} b/{path}\n", *lines]
        return "".join(out)

    def _grep(self, text: str) -> CommandResult:
        hits = [
            f"{path}:{n}:{line}\n"
            for path in sorted(self.files, key=str.encode)
            for n, line in enumerate(self.files[path].split("\n"), 1)
            if text in line and path in self._base
        ]
        return CommandResult(exit_code=0 if hits else 1, output="".join(hits))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports modules from a dictionary of files."""

    def __init__(self, files: Mapping[str, str], compiled: dict[tuple[str, str], CodeType]) -> None:
        self._files = files
        self._compiled = compiled
        self._folders: dict[str, str] = {}
        self.loaded: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module or package, with or without `__init__.py`."""
        parent, _, name = fullname.rpartition(".")
        for root in [self._folders[parent]] if parent else _roots():
            base = f"{root}{name}"
            if f"{base}/__init__.py" in self._files:
                return self._spec(fullname, f"{base}/__init__.py", folder=f"{base}/")
            if f"{base}.py" in self._files:
                return self._spec(fullname, f"{base}.py")
            if any(path.startswith(f"{base}/") for path in self._files):
                return self._spec(fullname, "", folder=f"{base}/")
        return None

    def _spec(self, name: str, origin: str, *, folder: str = "") -> importlib.machinery.ModuleSpec:
        self.loaded.append(name)
        if folder:
            self._folders[name] = folder
        return importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=bool(folder))

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code; compiled code is kept, since most files never change."""
        origin = module.__spec__.origin if module.__spec__ else ""
        if not origin:
            return
        text = self._files[origin]
        code = self._compiled.get((origin, text))
        if code is None:
            code = self._compiled[(origin, text)] = compile(text, origin, "exec", dont_inherit=True)
        exec(code, module.__dict__)


def _roots() -> list[str]:
    """Return the folders that the tests put on the path (relative ones), and the repository's root."""
    return [f"{entry.strip('/')}/" for entry in sys.path if entry and not entry.startswith("/")] + [""]


def run_tests(files: Mapping[str, str]) -> str:
    """Return the last line that `python -m unittest -q` prints for the tree's `tests` package."""
    finder = _Finder(files, {})
    names = sorted(path[:-3].replace("/", ".") for path in files if re.fullmatch(r"(?:tests/)?test\w*\.py", path))
    kept, hidden = list(sys.path), _hidden(files)
    sys.meta_path.insert(0, finder)
    sink = io.StringIO()
    try:
        with redirect_stdout(sink), redirect_stderr(sink):
            suite = unittest.defaultTestLoader.loadTestsFromNames(names)
            result = unittest.TestResult()
            suite.run(result)
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = kept
        for name in finder.loaded:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
    return _last_line(result)


def _hidden(files: Mapping[str, str]) -> dict[str, ModuleType]:
    """Take out of the interpreter what has the name of a module of the tree, such as another `tests`."""
    tops = {part.removesuffix(".py") for path in files for part in path.split("/")[:2]}
    names = [name for name in sys.modules if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}


def _last_line(result: unittest.TestResult) -> str:
    if result.wasSuccessful():
        return "OK"
    parts = []
    if result.failures:
        parts.append(f"failures={len(result.failures)}")
    if result.errors:
        parts.append(f"errors={len(result.errors)}")
    return f"FAILED ({', '.join(parts)})"
