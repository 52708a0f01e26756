"""Repositories elsewhere: cloned without their history into a folder that is removed again."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from looper.errors import StoreError, WorkspaceError
from looper.memory.ingestion.folders import FolderLimits, Reading, read_folder
from looper.memory.ingestion.git_calls import git
from looper.memory.rows import Scope

_GITHUB = re.compile(
    r"(?:https?://(?:www\.)?github\.com/|git@github\.com:|ssh://git@github\.com/|github:)"
    r"(?P<owner>[\w-]+)/(?P<name>[\w.-]+?)(?:\.git)?(?:/tree/(?P<branch>[\w./-]+?))?/?"
)


def clone_address(target: str) -> tuple[str, str, str] | None:
    """Return address, `owner/name` and branch ('' for the default) of a repository; None if `target` names none.

    Understood are GitHub's addresses in every spelling, `file://` and any address that ends in `.git`.
    """
    if match := _GITHUB.fullmatch(target):
        name = f"{match['owner']}/{match['name']}"
        return f"https://github.com/{name}", name, match["branch"] or ""
    parts = urlsplit(target)
    if parts.scheme == "file" or (parts.scheme in ("http", "https") and parts.path.rstrip("/").endswith(".git")):
        host = f"{parts.netloc}/" if parts.netloc else ""
        return target, f"{host}{parts.path.strip('/').removesuffix('.git')}", ""
    return None


def read_repository(target: str, *, scope: Scope = "", limits: FolderLimits | None = None) -> Reading:
    """Clone a repository's newest commit and read it. Raises StoreError if it cannot be cloned."""
    found = clone_address(target)
    if found is None:
        raise StoreError(f"{target!r} is no address of a repository; give https://github.com/OWNER/NAME")
    address, name, branch = found
    with tempfile.TemporaryDirectory(prefix="looper-clone-") as folder:
        place = Path(folder) / "clone"
        options = ["--depth", "1", "--no-tags", "--single-branch", "--quiet", *(["--branch", branch] if branch else [])]
        try:
            git("clone", *options, "--", address, str(place), cwd=Path(folder))
        except WorkspaceError as error:
            raise StoreError(
                f"{address} cannot be cloned: {error}. Check the address, or give a local clone"
            ) from error
        return read_folder(place, url=address, name=name, scope=scope, limits=limits)
