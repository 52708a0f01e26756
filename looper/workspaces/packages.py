"""Packages that looper runs on, found with all they require: what a task may ask to be shown in its boxes."""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache
from pathlib import Path

from looper.errors import MachineError


@lru_cache(maxsize=64)
def closure(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the top-level files and folders of installed distributions and of all that these require, sorted.

    Requirements count if their markers hold here; extras do not. A folder that several distributions share is shown
    whole. A requirement that is not installed is left out, as nothing here can import it either. Raises MachineError
    for a name that is not installed, or that does not list its files.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    todo, seen = list(names), set[str]()
    found: dict[str, Path] = {}
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            if name in {canonicalize_name(wanted) for wanted in names}:
                raise MachineError(f"the package {name!r} is not installed; give pip install {name}") from error
            continue
        found.update(_top(distribution, name))
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return tuple(found[name] for name in sorted(found))


def _top(distribution: importlib.metadata.Distribution, name: str) -> dict[str, Path]:
    """Return the names that a distribution put beside other packages, without programs and path files."""
    if distribution.files is None:
        raise MachineError(f"the package {name!r} does not list its files; install it anew with pip")
    tops = {file.parts[0] for file in distribution.files}
    paths = {top: Path(str(distribution.locate_file(top))) for top in tops - {"..", "__pycache__"}}
    return {top: path for top, path in paths.items() if not top.endswith(".pth") and path.exists()}
