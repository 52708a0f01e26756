"""Folders and git working trees as one source: README, documents and code, what is ignored left out."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from looper.errors import StoreError
from looper.memory.ingestion.files import KINDS, decoded, file_blocks, suffix_of
from looper.memory.ingestion.git_calls import git, line
from looper.memory.ingestion.passages import Block, packed, sha_of
from looper.memory.rows import Chunk, Origin, Paper, Scope

_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages", "venv", "dist", "build"})
_LICENCES = (
    (r"\bMIT License|Permission is hereby granted, free of charge", "MIT"),
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"Redistribution and use in source and binary forms[\s\S]*Neither the name", "BSD-3-Clause"),
    (r"Redistribution and use in source and binary forms", "BSD-2-Clause"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "AGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "LGPL-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "GPL-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "GPL-2.0"),
    (r"Mozilla Public License Version 2\.0", "MPL-2.0"),
    (r"unlicense\.org", "Unlicense"),
)


@dataclass(frozen=True, kw_only=True)
class FolderLimits:
    """How much of a folder is read."""

    file_bytes: int = 1_000_000
    """Larger files are skipped and counted."""
    files: int = 20_000
    """More files are an error: a folder of that many is hardly one source."""
    total_bytes: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A source that was read, and what of it was not."""

    paper: Paper
    chunks: list[Chunk]
    skipped: Mapping[str, int]
    """Reason -> number of files."""

    @property
    def summary(self) -> str:
        """One line: how much was read and skipped."""
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(self.skipped.items()))
        return f"{self.paper.id}: {len(self.chunks)} passages" + (f"; skipped: {left}" if left else "")


def read_folder(
    folder: Path, *, url: str = "", name: str = "", scope: Scope = "", limits: FolderLimits | None = None
) -> Reading:
    """Read a folder, or a git working tree: there, what git ignores is left out and the commit is the version.

    `name` (`owner/name`) and `url` say where it was cloned from; without them its remote on GitHub does, or its path.
    Raises StoreError if nothing can be read or the limits are passed.
    """
    limits = limits or FolderLimits()
    if not folder.is_dir():
        raise StoreError(f"{folder} is no folder; give an existing one")
    folder = folder.resolve()
    found = _found(folder, limits)
    if not any(text.strip() for text in found.texts.values()):
        left = ", ".join(f"{count} {reason}" for reason, count in sorted(found.skipped.items())) or "it is empty"
        raise StoreError(f"{folder} holds no text that could be read ({left}); give a folder with text or code")
    blocks: list[Block] = []
    for path, text in found.texts.items():
        blocks += file_blocks(text, path)
    paper = _paper(folder, name=name, url=url, found=found, scope=scope)
    return Reading(paper=paper, chunks=packed(blocks), skipped=found.skipped)


@dataclass(kw_only=True)
class _Found:
    """What was read of a folder."""

    texts: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Path -> the names that git would give the content, by SHA-1 and by SHA-256."""
    skipped: Counter[str] = field(default_factory=Counter)


def _paper(folder: Path, *, name: str, url: str, found: _Found, scope: Scope) -> Paper:
    commit = ""
    if line("rev-parse", "--show-prefix", cwd=folder) == "":  # its root, or no repository at all
        commit = line("rev-parse", "--verify", "--quiet", "HEAD", cwd=folder)
    if not name and commit:
        remote = re.search(
            r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", line("remote", "get-url", "origin", cwd=folder)
        )
        name, url = (remote.group(1), f"https://github.com/{remote.group(1)}") if remote else ("", "")
    version = f"{commit}+changes" if commit and _changed(folder, found) else commit
    where = name or utf8(str(folder))
    return Paper(
        id=f"repository:{where}@{version}" if commit else f"folder:{where}",
        origin=Origin.REPOSITORY if commit else Origin.FOLDER,
        title=name or utf8(folder.name),
        version=version,
        url=url,
        licence=_licence(found.texts),
        sha=sha_of(part for path, text in found.texts.items() for part in (path, text)),
        scope=scope,
    )


def _changed(folder: Path, found: _Found) -> bool:
    """Whether the text differs from its commit. Not by `git status`: that runs the filters that a config names."""
    out = git("ls-tree", "-r", "-z", "HEAD", cwd=folder) or b""
    rows = [row.split(b"\t", 1) for row in out.split(b"\0") if row]
    kept = {utf8(os.fsdecode(path)): entry.split()[2].decode() for entry, path in rows}
    return any(kept.get(path) not in names for path, names in found.blobs.items())


def _found(folder: Path, limits: FolderLimits) -> _Found:
    found = _Found()
    total = 0
    for count, path in enumerate(listed(folder), 1):
        if count > limits.files:
            raise StoreError(f"{folder} holds more than {limits.files:,} files; give the part of it that matters")
        file = folder / path
        shown = utf8(path)
        if file.is_symlink() or not file.resolve().is_relative_to(folder):
            found.skipped["links"] += 1
        elif not file.is_file():
            found.skipped["no plain files"] += 1
        elif suffix_of(shown) not in KINDS:
            found.skipped["of other kinds"] += 1
        elif (size := file.stat().st_size) > limits.file_bytes:
            found.skipped[f"above {limits.file_bytes:,} bytes"] += 1
        else:
            total += size
            if total > limits.total_bytes:
                raise StoreError(f"{folder} holds more than {limits.total_bytes:,} bytes of text; give a part of it")
            try:
                data = file.read_bytes()
                found.texts[shown] = decoded(data, shown)
            except (StoreError, OSError):
                found.skipped["binary or unreadable"] += 1
                continue
            blob = b"blob %d\0%s" % (len(data), data)
            found.blobs[shown] = (hashlib.sha1(blob).hexdigest(), hashlib.sha256(blob).hexdigest())
    return found


def listed(folder: Path) -> Iterator[str]:
    """Yield the paths below a folder in order: what git knows or would add, where it is a git working tree."""
    out = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=folder, okay=(128,))
    if out:
        # A path is listed several times while a merge is under way.
        yield from (os.fsdecode(path) for path in sorted({path for path in out.split(b"\0") if path}))
        return
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(files):
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _licence(texts: Mapping[str, str]) -> str:
    """Return the SPDX name of the licence file at the top; '' if there is none or it is not recognised."""
    for path, text in texts.items():
        if re.fullmatch(r"(?i)(licen[cs]e|copying)(\.\w+)?", path):
            return next((name for pattern, name in _LICENCES if re.search(pattern, text[:5_000])), "")
    return ""


def utf8(path: str) -> str:
    """Return a path as text that can be stored, whatever bytes it holds."""
    return os.fsencode(path).decode("utf-8", errors="replace")
