"""The private folder in which checkouts live: its mounts, its owner, and its removal, also after a kill."""

from __future__ import annotations

import atexit
import ctypes
import errno
import fcntl
import logging
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path

from looper.errors import MachineError

LOG = logging.getLogger(__name__)

PREFIX = "looper-box-"
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 1 << 18
_MNT_DETACH = 2
_FIRST_UID = 61000


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    """Mount a file system. Raises OSError."""
    call = _libc().mount
    if call(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def unmount(target: Path) -> None:
    """Unmount, at once, whatever still uses it. Raises OSError."""
    if _libc().umount2(os.fsencode(target), _MNT_DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def _mounts_below(folder: Path) -> list[Path]:
    """Return the mount points below a folder, innermost first."""
    table = Path("/proc/self/mounts")
    if not table.exists():
        return []
    found = [line.split(" ")[1].encode().decode("unicode_escape") for line in table.read_text().splitlines()]
    inside = f"{folder}/"
    return [Path(path) for path in sorted(found, reverse=True) if path.startswith(inside)]


def remove(folder: Path) -> None:
    """Unmount everything below a folder and delete it, whatever permissions a box has left."""
    for path in _mounts_below(folder):
        unmount(path)
    delete(folder)


def delete(folder: Path) -> None:
    """Delete a tree, also where a command took away our right to do so or nested folders by the thousand."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        subprocess.run(["chmod", "-R", "u+rwx", "--", str(folder)], capture_output=True)
        subprocess.run(["rm", "-rf", "--", str(folder)], check=True, capture_output=True)


class Scratch:
    """A folder that only this process uses; others see that it is alive by the lock it holds."""

    def __init__(self, parent: str) -> None:
        where = Path(parent).expanduser().resolve() if parent else Path(tempfile.gettempdir()).resolve()
        try:
            where.mkdir(parents=True, exist_ok=True)
            remove_stale(where)
            self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        except OSError as error:
            raise MachineError(
                f"no scratch folder can be made in {where}: {error.strerror}; set scratch=PATH"
            ) from error
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.root.chmod(0o711)  # the boxes' user may pass through, not look around
        for name, mode in (("boxes", 0o711), ("pristine", 0o700), ("host", 0o700), ("seen", 0o711)):
            (self.root / name).mkdir(mode=mode)
            (self.root / name).chmod(mode)
        self.can_mount = self._try_mount()
        self.owner = _box_user(self.root / "host") if os.geteuid() == 0 else None
        if self.owner is not None and not all(_passable(parent) for parent in self.root.parents):
            remove(self.root)
            os.close(self._lock)
            advice = "set scratch=PATH to a folder below ones with chmod o+x, such as /tmp"
            raise MachineError(f"{where} cannot be reached by the unprivileged user who runs commands; {advice}")
        self._aliases: dict[Path, Path] = {}
        self._guard = threading.Lock()
        self._finalizer = weakref.finalize(self, _close, self.root, self._lock, os.getpid())
        atexit.register(self._finalizer)

    def close(self) -> None:
        """Remove the folder."""
        self._finalizer()

    def _try_mount(self) -> bool:
        if not sys.platform.startswith("linux") or os.geteuid() != 0:
            return False
        try:
            mount("tmpfs", self.root / "host", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=700")
            unmount(self.root / "host")
        except OSError:
            return False
        return True

    def size_limited(self, folder: Path, megabytes: int, inodes: int) -> bool:
        """Put a tmpfs of a fixed size over an empty folder; False where that is not allowed."""
        if not self.can_mount:
            return False
        options = f"size={megabytes}m,nr_inodes={inodes},mode=711"
        mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
        return True

    def overlay(self, lower: Path, folder: Path) -> bool:
        """Mount `folder/repo`: `lower`, with changes kept in `folder/upper`; False where that is not allowed."""
        if not self.can_mount or any(c in f"{lower}{folder}" for c in ",:\\"):
            return False
        upper, work, top = (folder / name for name in ("upper", "work", "repo"))
        for path in (upper, work, top):
            path.mkdir(mode=0o700)
        if self.owner is not None:
            os.chown(upper, self.owner, self.owner)
        try:
            mount(
                "overlay", top, "overlay", _MS_NOSUID | _MS_NODEV, f"lowerdir={lower},upperdir={upper},workdir={work}"
            )
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            for path in (upper, work, top):
                delete(path)
            return False
        return True

    def reachable(self, path: Path) -> Path | None:
        """Return a path at which the boxes' user finds the same folder, None if there is none.

        Nothing can be written or deleted through it: it may outlive a killed run, and be swept away with its folder.
        """
        if self.owner is None or _open_to_all(path):
            return path
        with self._guard:
            if path not in self._aliases:
                if not self.can_mount or path.stat().st_mode & 0o005 != 0o005:
                    return None
                alias = self.root / "seen" / str(len(self._aliases))
                alias.mkdir(mode=0o755)
                mount(str(path), alias, "none", _MS_BIND, "")
                mount("none", alias, "none", _MS_PRIVATE, "")  # what is mounted in it stays in it
                # A container may insist on what is kept.
                kept = os.statvfs(alias).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
                try:
                    mount("none", alias, "none", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept, "")
                except OSError:
                    unmount(alias)
                    return None
                self._aliases[path] = alias
            return self._aliases[path]

    def hide(self, folder: Path) -> None:
        """Cover a folder below a `reachable` alias, in the alias only."""
        if folder.is_dir() and folder.is_relative_to(self.root / "seen"):
            mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=4k,mode=755")


def _passable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)


def _open_to_all(path: Path) -> bool:
    """Whether a user who owns nothing can reach and read a path."""
    return all(_passable(parent) for parent in path.parents) and bool(path.stat().st_mode & 0o004)


def _box_user(folder: Path) -> int | None:
    """Return a user id that nobody has: root's commands run as this user.

    None inside a user namespace that has no second user (a rootless container): nothing can be given away there.
    """
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    user = next(uid for uid in range(_FIRST_UID, 65000) if uid not in taken)
    probe = folder / "probe"
    probe.touch()
    try:
        os.chown(probe, user, user)
    except OSError:
        return None
    finally:
        probe.unlink()
    return user


def _close(root: Path, lock: int, owner: int) -> None:
    if os.getpid() != owner:  # a fork inherits the finalizer, not the folder
        return
    if root.exists():
        remove(root)
    os.close(lock)


def remove_stale(where: Path) -> list[Path]:
    """Remove scratch folders whose process is gone (killed before it could clean up)."""
    gone = []
    for folder in where.glob(f"{PREFIX}*"):
        try:
            info = folder.lstat()
            if info.st_uid != os.geteuid() or not stat.S_ISDIR(info.st_mode):
                continue
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
            gone.append(folder)
        except BlockingIOError:
            continue
        except (OSError, subprocess.CalledProcessError) as error:  # mounted by the root of another namespace, say
            LOG.warning("scratch folder %s of a killed run cannot be removed: %s", folder, error)
        finally:
            os.close(fd)
    return gone
