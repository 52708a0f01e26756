"""What changed in a box since its base commit, as a patch; nothing in the box is trusted on the way.

The box's own `.git` is never read: its files are walked and hashed by us, compared with the base
commit's entries, and only the changed ones are put, before and after, into a repository made for
this purpose, in which git writes the patch. Neither a hook, a filter, a textconv nor an index
trick in the box can run a program or hide a change.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from looper.hostgit import git
from looper.workspaces.objects import EXECUTABLE, FILE, GITLINK, SYMLINK, Blob, Entry, ObjectStore, object_id
from looper.workspaces.tree import Tree, read_at

FILE_LIMIT = 20_000_000
"""Bytes; larger files are left out of a patch."""


def state_of(tree: Tree, base: Mapping[str, Entry]) -> tuple[dict[str, Blob], set[str]]:
    """Return the paths that are new or differ from the base with their content, and the paths that are gone."""
    changed: dict[str, Blob] = {}
    gone = {path for path, entry in base.items() if entry.mode != GITLINK}
    for path, folder, info in tree.walk():
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
            continue
        entry = base.get(path)
        if entry is not None:
            gone.discard(path)
        if info.st_size > FILE_LIMIT:
            continue
        mode = SYMLINK if stat.S_ISLNK(info.st_mode) else EXECUTABLE if info.st_mode & 0o100 else FILE
        data = read_at(folder, path.rpartition("/")[2], info, FILE_LIMIT)
        if entry is None or entry.mode != mode or entry.sha != object_id("blob", data):
            changed[path] = Blob(mode=mode, data=data)
    return changed, gone


def diff(tree: Tree, base: Mapping[str, Entry], content: Callable[[str], bytes], room: Path) -> str:
    """Return the patch from the base to the tree, '' if nothing changed.

    New files that the base's ignore rules name, `__pycache__` and `*.pyc` are left out. `content` gives
    the base's bytes of a path; `room` is a folder for temporary files that no sandbox sees.
    """
    changed, gone = state_of(tree, base)
    new = [path for path in changed if path not in base and not _is_bytecode(path)]
    if not (gone or new or any(path in base for path in changed)):
        return ""
    with tempfile.TemporaryDirectory(dir=room, prefix="diff-") as name:
        folder = Path(name)
        hidden = _ignored(new, base, content, folder / "rules") if new else set()
        after = {path: blob for path, blob in changed.items() if path in base or (path in new and path not in hidden)}
        paths = {path for path in (*after, *gone) if path in base}
        before = {path: Blob(mode=base[path].mode, data=content(path)) for path in paths}
        return _patch(before, after, folder / "git") if before or after else ""


def _is_bytecode(path: str) -> bool:
    return path.endswith(".pyc") or "__pycache__" in path.split("/")


def _ignored(new: list[str], base: Mapping[str, Entry], content: Callable[[str], bytes], folder: Path) -> set[str]:
    """Return the new paths that the base commit's own .gitignore files name; the box's do not count."""
    rules = [path for path, entry in base.items() if path.split("/")[-1] == ".gitignore" and entry.mode == FILE]
    if not rules:
        return set()
    for path in rules:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content(path))
    _make_repository(folder / ".git", {})
    names = b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in new)
    out = git(["check-ignore", "--no-index", "-z", "--stdin"], cwd=folder, text_in=names, okay=(0, 1))
    return {raw.decode("utf-8", "surrogateescape") for raw in out.split(b"\0") if raw}


def _patch(before: Mapping[str, Blob], after: Mapping[str, Blob], folder: Path) -> str:
    store = ObjectStore()
    old, _ = store.tree(before)
    new, _ = store.tree(after)
    _make_repository(folder, store.pack())
    blobs = {**{(p, 0): b.data for p, b in before.items()}, **{(p, 1): b.data for p, b in after.items()}}
    foreign = {path for (path, _), data in blobs.items() if not _is_text(data)}
    if foreign:  # bytes that are not UTF-8 would not survive in a text patch
        (folder / "info").mkdir(exist_ok=True)
        lines = "".join(f"{_quoted(path)} -diff\n" for path in sorted(foreign))
        (folder / "info" / "attributes").write_text(lines, encoding="utf-8", errors="surrogateescape")
    words = ["diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv"]
    out = git(["--git-dir", str(folder), *words, old, new], cwd=folder)
    shutil.rmtree(folder)
    return out.decode("utf-8", "replace")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _quoted(path: str) -> str:
    """Return a path as an attribute pattern that matches it alone."""
    escaped = "".join(f"\\{c}" if c in "*?[]\\" else c for c in path)
    return '"/' + escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _make_repository(folder: Path, files: Mapping[str, bytes]) -> None:
    for path in ("objects/pack", "refs/heads"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    for path, data in files.items():
        (folder / path).write_bytes(data)
