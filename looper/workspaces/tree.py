"""Files below a root, reached step by step so that no path, link or racing process leads outside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from looper.errors import WorkspaceError

READ_LIMIT = 1_000_000
"""Bytes that `read` returns at most, unless it is told otherwise."""

DEPTH = 64
"""Folders below each other that `walk` looks into."""

_LINKS = 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_of(path: str) -> list[str]:
    """Split a path relative to the root. Raises WorkspaceError for an absolute path, `..` too far, or a NUL."""
    if path.startswith("/"):
        raise WorkspaceError(f"{path}: paths are relative to the root of the checkout; leave out the leading '/'")
    if "\0" in path:
        raise WorkspaceError(f"{path!r}: a path cannot hold a NUL character")
    out: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not out:
                raise WorkspaceError(f"{path}: leads outside the checkout; name a path below its root")
            out.pop()
        elif part not in ("", "."):
            out.append(part)
    return out


class Tree:
    """A folder that untrusted processes write to, and the host reads and writes safely.

    Every component is opened with O_NOFOLLOW relative to its parent's descriptor, and links are
    resolved here, below the root: the kernel never follows one on our behalf.
    """

    def __init__(self, root: Path, owner: int | None = None) -> None:
        self.root = root
        self._owner = owner

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """Return a regular file's bytes, `limit` at most.

        Raises FileNotFoundError, IsADirectoryError, WorkspaceError (outside, not a regular file, too large).
        """
        try:
            with os.fdopen(self._open(path, os.O_RDONLY), "rb") as file:
                data = file.read(limit + 1)
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, "no such file", path) from error
        except (FileNotFoundError, IsADirectoryError):
            raise
        except OSError as error:
            raise WorkspaceError(f"{path}: cannot be read: {error.strerror}") from error
        if len(data) > limit:
            hint = "read a part of it with a command such as sed -n 1,80p"
            raise WorkspaceError(f"{path}: is larger than the limit of {limit} bytes; {hint}")
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write a regular file, making its folders. Raises IsADirectoryError, WorkspaceError (outside, no space)."""
        try:
            with os.fdopen(self._open(path, os.O_WRONLY | os.O_CREAT), "wb") as file:
                file.write(data)
        except IsADirectoryError:
            raise
        except OSError as error:
            raise WorkspaceError(f"{path}: cannot be written: {error.strerror}") from error

    def walk(self) -> Iterator[tuple[str, int, os.stat_result]]:
        """Yield (path, descriptor of its folder, lstat) of everything that is no folder and not below a `.git`.

        Deeper than DEPTH folders it does not look, so that no tree exhausts the host's descriptors.
        """
        root = os.open(self.root, _FOLDER)
        try:
            yield from self._walk(root, "", DEPTH)
        finally:
            os.close(root)

    def _walk(self, folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int, os.stat_result]]:
        for name in sorted(os.listdir(folder)):
            if name.lower() in (".git", "git~1"):  # names that git itself refuses in a patch
                continue
            try:
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode):
                    yield prefix + name, folder, info
                    continue
                child = _force_open(name, folder, _FOLDER, 0o700)
            except FileNotFoundError:
                continue
            try:
                if depth:
                    yield from self._walk(child, f"{prefix}{name}/", depth - 1)
            finally:
                os.close(child)

    def _open(self, path: str, flags: int) -> int:
        """Open a regular file below the root and return its descriptor."""
        todo = parts_of(path)
        create = bool(flags & os.O_CREAT)
        stack = [os.open(self.root, _FOLDER)]
        links = 0
        try:
            while todo:
                name = todo.pop(0)
                if name == "..":
                    if len(stack) == 1:
                        raise WorkspaceError(f"{path}: a link leads outside the checkout; name a path below its root")
                    os.close(stack.pop())
                    continue
                target = _link(name, stack[-1])
                if target is not None:
                    links += 1
                    if target.startswith("/") or links > _LINKS:
                        raise WorkspaceError(f"{path}: the link {name} -> {target} leads outside the checkout")
                    todo[:0] = [part for part in target.split("/") if part not in ("", ".")]
                elif todo:
                    stack.append(self._step(stack[-1], name, create))
                else:
                    return self._last(stack[-1], name, flags, path)
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", path)
        finally:
            for fd in stack:
                os.close(fd)

    def _step(self, folder: int, name: str, create: bool) -> int:
        try:
            return os.open(name, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            if not create:
                raise
            os.mkdir(name, 0o755, dir_fd=folder)
            child = os.open(name, _FOLDER, dir_fd=folder)
            if self._owner is not None:
                os.fchown(child, self._owner, self._owner)
            return child

    def _last(self, folder: int, name: str, flags: int, path: str) -> int:
        create = bool(flags & os.O_CREAT)
        safe = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(name, flags | safe, 0o644, dir_fd=folder)
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", path)
        if not stat.S_ISREG(info.st_mode) or (create and info.st_nlink > 1):
            os.close(fd)
            raise WorkspaceError(f"{path}: is not a regular file of its own (a pipe, a device or a hard link)")
        if create:
            if self._owner is not None:
                os.fchown(fd, self._owner, self._owner)
            os.ftruncate(fd, 0)
        return fd


def _link(name: str, folder: int) -> str | None:
    """Return a symbolic link's target; None if the name is no link or does not exist."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def read_at(folder: int, name: str, info: os.stat_result, limit: int) -> bytes:
    """Return the content of a file found by `walk` (of a link: its target), never following a link."""
    if stat.S_ISLNK(info.st_mode):
        return os.fsencode(os.readlink(name, dir_fd=folder))
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(_force_open(name, folder, flags, 0o600), "rb") as file:
        return file.read(limit)


def _force_open(name: str, folder: int, flags: int, mode: int) -> int:
    """Open a name, giving ourselves the right to it first if a command in the box took it away."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        # Through a descriptor, because chmod by name would follow a link put there meanwhile.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            Path(f"/proc/self/fd/{fd}").chmod(mode)
        finally:
            os.close(fd)
        return os.open(name, flags, dir_fd=folder)
