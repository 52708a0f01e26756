"""Base commits: made once, laid out afresh for every session, and checked each time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from looper.errors import WorkspaceError
from looper.hostgit import RAW_ATTRIBUTES, git
from looper.records import Source, digest_of
from looper.workspaces.objects import Entry, Snapshot, snapshot
from looper.workspaces.patch import state_of
from looper.workspaces.scratch import Scratch, delete
from looper.workspaces.tree import Tree, parts_of

INLINE_KEPT = 512
"""Inline trees kept in memory (some ten kilobytes each)."""
REPOSITORIES_KEPT = 16
"""Pristine checkouts of repositories kept on disk."""


class InlineBase:
    """The base commit of an inline tree, held in memory."""

    def __init__(self, source: Source) -> None:
        for path in source.files:
            parts = parts_of(path)
            if "/".join(parts) != path or any(part.lower() == ".git" for part in parts):
                raise WorkspaceError(f"{source.name}: {path!r} is no plain relative path of a file in a tree")
        try:
            self._snapshot: Snapshot = snapshot(source.files)
        except ValueError as error:
            raise WorkspaceError(f"{source.name}: {error}") from error
        self.commit = self._snapshot.commit
        self.entries: Mapping[str, Entry] = self._snapshot.entries

    def content(self, path: str) -> bytes:
        """Return the base's bytes of a path."""
        return self._snapshot.files[path]

    def lay_out(self, box: Path, scratch: Scratch) -> Path:
        """Write the tree and a `.git` with this one commit into `box/repo`."""
        root = box / "repo"
        files = {**self._snapshot.files, **{f".git/{path}": data for path, data in self._snapshot.git.items()}}
        folders = {""}
        for path in files:
            while (path := path.rpartition("/")[0]) not in folders:
                folders.add(path)
        for folder in sorted(folders):
            (root / folder).mkdir(mode=0o755)
            if scratch.owner is not None:
                os.chown(root / folder, scratch.owner, scratch.owner)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for path, data in files.items():
            fd = os.open(f"{root}/{path}", flags, 0o644)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                if scratch.owner is not None:
                    os.fchown(fd, scratch.owner, scratch.owner)
        return root

    def verify(self, root: Path) -> None:
        """Check that the checkout is this commit and nothing else. Raises WorkspaceError."""
        _verify_tree(root, self.entries)
        found = {path.relative_to(root / ".git").as_posix() for path in (root / ".git").rglob("*") if path.is_file()}
        if found != set(self._snapshot.git):
            raise WorkspaceError(f"{root}: .git holds {sorted(found ^ set(self._snapshot.git))} unexpectedly")
        _verify_head(root / ".git", self.commit)


class RepositoryBase:
    """The base commit of a repository: a pristine checkout without any other commit."""

    def __init__(self, source: Source, folder: Path, scratch: Scratch) -> None:
        self.commit = source.commit
        self.folder = folder
        self.users = 0
        origin = Path(source.repository).expanduser().resolve()
        if not origin.exists():
            raise WorkspaceError(f"{origin}: there is no repository; clone {source.name} there first")
        folder.mkdir(mode=0o755)
        try:
            self._fetch(origin)
            self.entries = _entries(folder)
            _verify_tree(folder, self.entries)
            _verify_single(folder, self.commit)
            if scratch.owner is not None:
                _own(folder, scratch.owner)
        except BaseException:
            delete(folder)
            raise

    def _fetch(self, origin: Path) -> None:
        serve = "git -c 'safe.directory=*' -c uploadpack.allowAnySHA1InWant=true upload-pack"
        at = self.folder
        git(["init", "--quiet", "--template=", "--initial-branch=main", "."], cwd=at)
        (at / ".git" / "info").mkdir()
        (at / ".git" / "info" / "attributes").write_text(RAW_ATTRIBUTES)
        words = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-write-fetch-head",
            "--update-head-ok",
            f"--upload-pack={serve}",
        ]
        git([*words, f"file://{origin}", f"{self.commit}:refs/heads/main"], cwd=at)
        git(["-c", "core.logAllRefUpdates=false", "reset", "--quiet", "--hard", "refs/heads/main"], cwd=at)
        (at / ".git" / "ORIG_HEAD").unlink(missing_ok=True)
        shutil.rmtree(at / ".git" / "logs", ignore_errors=True)

    def content(self, path: str) -> bytes:
        """Return the base's bytes of a path."""
        file = self.folder / path
        return os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()

    def lay_out(self, box: Path, scratch: Scratch) -> Path:
        """Make `box/repo`: an overlay over the pristine checkout, else a copy of it."""
        root = box / "repo"
        if not scratch.overlay(self.folder, box):
            command = ["cp", "-a", str(self.folder), str(root)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise WorkspaceError(f"the checkout could not be copied: {done.stderr.strip()[-500:]}")
        return root

    def verify(self, root: Path) -> None:
        """Check that the checkout is this commit and nothing else. Raises WorkspaceError."""
        _verify_tree(root, self.entries)
        _verify_head(root / ".git", self.commit)


Base = InlineBase | RepositoryBase


class Bases:
    """The base commits in use, the least recently used forgotten when there are too many."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._inline: OrderedDict[str, InlineBase] = OrderedDict()
        self._repositories: OrderedDict[str, RepositoryBase] = OrderedDict()
        self._lock = Lock()
        self._made = 0

    def take(self, source: Source) -> Base:
        """Return a source's base commit. Raises WorkspaceError. Give it back with `release`."""
        if bool(source.files) == bool(source.repository):
            raise WorkspaceError(
                f"{source.name}: a source has either files or a repository, and this has not one of them"
            )
        if source.files:
            return self._take_inline(source)
        if len(source.commit) < 40:
            raise WorkspaceError(f"{source.name}: {source.commit!r} is no full commit hash (40 digits)")
        key = digest_of([source.repository, source.commit])
        with self._lock:  # also keeps two sessions from fetching the same commit
            base = self._repositories.get(key)
            if base is None:
                self._evict()
                self._made += 1
                base = RepositoryBase(source, self._scratch.root / "pristine" / f"{key}-{self._made}", self._scratch)
                self._repositories[key] = base
            self._repositories.move_to_end(key)
            base.users += 1
            return base

    def _take_inline(self, source: Source) -> InlineBase:
        key = digest_of(source.files)
        with self._lock:
            base = self._inline.get(key)
            if base is not None:
                self._inline.move_to_end(key)
                return base
        base = InlineBase(source)
        with self._lock:
            self._inline[key] = base
            while len(self._inline) > INLINE_KEPT:
                self._inline.popitem(last=False)
        return base

    def release(self, base: Base) -> None:
        """Say that a box over this base is closed."""
        if isinstance(base, RepositoryBase):
            with self._lock:
                base.users -= 1

    def _evict(self) -> None:
        idle = [key for key, base in self._repositories.items() if not base.users]
        for key in idle[: max(len(self._repositories) + 1 - REPOSITORIES_KEPT, 0)]:
            delete(self._repositories.pop(key).folder)


def _entries(folder: Path) -> dict[str, Entry]:
    out: dict[str, Entry] = {}
    for row in git(["ls-tree", "-r", "-z", "HEAD"], cwd=folder).split(b"\0"):
        if row:
            head, _, raw = row.partition(b"\t")
            mode, _, sha = head.decode().split(" ")
            out[raw.decode("utf-8", "surrogateescape")] = Entry(mode=mode, sha=sha)
    return out


def _verify_tree(root: Path, entries: Mapping[str, Entry]) -> None:
    changed, gone = state_of(Tree(root), entries)
    # A file above the size limit of patches counts as there: its size was right when it was written.
    if changed or gone:
        names = ", ".join(sorted([*changed, *gone])[:5])
        raise WorkspaceError(f"{root}: the checkout is not clean at its base commit: {names}")


def _verify_head(folder: Path, commit: str) -> None:
    head = (folder / "HEAD").read_text().strip()
    branch = (folder / "refs" / "heads" / "main").read_text().strip()
    if head != "ref: refs/heads/main" or branch != commit:
        raise WorkspaceError(f"{folder}: HEAD is {head} at {branch}, not main at {commit}")
    others = [path for path in (folder / "refs").rglob("*") if path.is_file() and path != folder / "refs/heads/main"]
    names = ("packed-refs", "logs", "FETCH_HEAD", "ORIG_HEAD", "objects/info/alternates")
    others += [folder / name for name in names if (folder / name).exists()]
    if others:
        raise WorkspaceError(f"{folder}: holds more than one commit's checkout: {others[0]}")


def _verify_single(folder: Path, commit: str) -> None:
    """Check that the object store holds this commit and no other, and that nothing leads elsewhere."""
    rows = git(["cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)"], cwd=folder)
    commits = [row.split(" ")[1] for row in rows.decode().splitlines() if row.startswith("commit ")]
    remotes = git(["remote"], cwd=folder).decode().split()
    if commits != [commit] or remotes:
        raise WorkspaceError(f"{folder}: expected commit {commit} alone, found {commits[:3]} and remotes {remotes}")
    _verify_head(folder / ".git", commit)


def _own(folder: Path, owner: int) -> None:
    for here, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(here, name), owner, owner, follow_symlinks=False)
    os.chown(folder, owner, owner)
