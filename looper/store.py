"""The content-addressed store under outputs/: each file is written once, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from looper.errors import StoreError
from looper.records import Episode, Record, Reply, Trajectory, Verdict, digest_of

R = TypeVar("R", bound=BaseModel)

DRAFT = ".part"
"""Ending of a file that is being written."""
STALE_SECONDS = 86_400.0
"""Age from which a draft is nobody's: writing one takes moments, on a slow network disk too."""
PLACES = (
    "",
    "runs/*/",
    "trajectories/*/",
    "verdicts/*/",
    "episodes/*/",
    "replies/*/",
    "measurements/*/",
    "jobs/*/*/",
    "sweeps/*/*/",
    "sweeps/*/*/*/",
)
"""Where in a store drafts are written."""


def write_whole(path: Path, text: str) -> None:
    """Write a file by rename, so that no reader ever sees half of it.

    A killed process may leave the draft, `.NAME.????????.part`; opening a `Store` removes old ones.
    Raises StoreError, naming the file and the cause, if it cannot be written; nothing is left behind.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=DRAFT, dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            os.fchmod(handle, 0o666 & ~_umask())
            file.write(text)
        Path(temporary).replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            if temporary:
                Path(temporary).unlink()
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; free space or rights there, or choose another "
            f"folder with out=FOLDER, and give the same command again: what is finished is kept"
        ) from error


def _tidy(root: Path) -> None:
    """Remove drafts that killed processes left below `root`, whoever else does so at the same time."""
    for place in PLACES:
        with contextlib.suppress(OSError):  # a folder that went away meanwhile; tidying is no reason to stop
            for draft in root.glob(f"{place}.*.????????{DRAFT}"):
                with contextlib.suppress(OSError):
                    if draft.lstat().st_mtime < time.time() - STALE_SECONDS:
                        draft.unlink()


@lru_cache(maxsize=1)
def _umask() -> int:
    """Return the process's umask: temporary files are private, finished ones are for colleagues too."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_record(path: Path, kind: type[R]) -> R | None:
    """Read a record; None if there is no such file. Raises StoreError if it is damaged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise StoreError(f"{path} is unreadable ({why}); delete it, and what it held is made again") from error


class _Judged(Record):
    """An episode as stored: the trajectory is a file of its own, shared by the worlds it is judged in."""

    digest: str
    task: str
    family: str
    world: str
    pair: str
    trajectory: str
    patch: str
    """Digest of the patch that was judged: a session that is run again after a failure of the machine has another."""
    verdict: Verdict


class Store:
    """Trajectories, verdicts and episodes by digest; shared by all runs and jobs of a sweep."""

    def __init__(self, root: Path) -> None:
        """Open (and make) the store below `root`. Raises StoreError if nothing can be written there."""
        self.root = root
        write_whole(root / ".writable", "")
        _tidy(root)

    def trajectory(self, digest: str) -> Trajectory | None:
        """Return a finished session."""
        return read_record(self._path("trajectories", digest), Trajectory)

    def add_trajectory(self, trajectory: Trajectory) -> None:
        """Keep a finished session."""
        write_whole(self._path("trajectories", trajectory.digest), trajectory.model_dump_json())

    def verdict(self, digest: str) -> Verdict | None:
        """Return what the tests said of a patch."""
        return read_record(self._path("verdicts", digest), Verdict)

    def add_verdict(self, digest: str, verdict: Verdict) -> None:
        """Keep a verdict."""
        write_whole(self._path("verdicts", digest), verdict.model_dump_json())

    def episode(self, digest: str) -> Episode | None:
        """Return a judged session."""
        judged = read_record(self._path("episodes", digest), _Judged)
        if judged is None:
            return None
        trajectory = self.trajectory(judged.trajectory)
        if trajectory is None or judged.patch != digest_of(trajectory.patch):
            return None
        fields = {**dict(judged), "trajectory": trajectory}
        fields.pop("patch")
        return Episode(**fields)

    def add_episode(self, episode: Episode) -> None:
        """Keep a judged session, by reference to its trajectory."""
        trajectory = episode.trajectory
        judged = _Judged(**{**dict(episode), "trajectory": trajectory.digest, "patch": digest_of(trajectory.patch)})
        write_whole(self._path("episodes", episode.digest), judged.model_dump_json())

    def reply(self, digest: str) -> Reply | None:
        """Return a model's answer to a question that is asked once."""
        return read_record(self._path("replies", digest), Reply)

    def add_reply(self, digest: str, reply: Reply) -> None:
        """Keep an answer."""
        write_whole(self._path("replies", digest), reply.model_dump_json())

    def folder(self, kind: str, digest: str) -> Path:
        """Return the folder of an artefact such as an adapter."""
        return self.root / kind / digest

    def below(self, path: str) -> str:
        """Return the path of something in the store relative to it: the same wherever the store lies."""
        root, place = self.root.resolve(), Path(path).resolve()
        return place.relative_to(root).as_posix() if place.is_relative_to(root) else path

    def _path(self, kind: str, digest: str) -> Path:
        return self.root / kind / digest[:2] / f"{digest}.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON by rename; NaN and infinity are errors, not silent nulls."""
    write_whole(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
