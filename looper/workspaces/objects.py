"""Git objects made in memory: a tree of files becomes a repository without starting a process.

A thousand small inline trees are opened in one run, each several times. Writing the five files of a
minimal `.git` (one pack, its index, the index, HEAD, the branch) costs a fraction of a millisecond;
`git init`, `add` and `commit` cost fifteen. Formats: gitformat-pack(5), gitformat-index(5).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

FILE, EXECUTABLE, SYMLINK, GITLINK, FOLDER = "100644", "100755", "120000", "160000", "40000"
"""File modes as git spells them."""

IDENTITY = b"looper <looper@localhost> 946684800 +0000"
"""Author and committer of inline trees: constant, so that a commit is a pure function of its content."""

CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = false\n"

_KINDS = {"commit": 1, "tree": 2, "blob": 3}


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Content of one path."""

    mode: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a base commit says of one path."""

    mode: str
    sha: str


def object_id(kind: str, data: bytes) -> str:
    """Return git's SHA-1 of an object."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


class ObjectStore:
    """Objects of a repository that is being made."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[str, bytes]] = {}

    def add(self, kind: str, data: bytes) -> str:
        """Add an object and return its id."""
        sha = object_id(kind, data)
        self._objects[sha] = (kind, data)
        return sha

    def tree(self, files: Mapping[str, Blob]) -> tuple[str, dict[str, Entry]]:
        """Add the blobs and trees of a set of files; return the root tree's id and every path's entry."""
        entries = {path: Entry(mode=b.mode, sha=self.add("blob", b.data)) for path, b in files.items()}
        root: dict[str, object] = {}
        for path, entry in entries.items():
            *folders, name = path.split("/")
            here = root
            for folder in folders:
                child = here.setdefault(folder, {})
                if not isinstance(child, dict):
                    raise ValueError(f"{path}: {folder!r} is a file and a folder at once")
                here = child
            here[name] = entry
        return self._folder(root), entries

    def _folder(self, folder: dict[str, object]) -> str:
        rows: list[tuple[bytes, str, bytes, str]] = []
        for name, child in folder.items():
            raw = name.encode("utf-8", "surrogateescape")
            if isinstance(child, Entry):
                rows.append((raw, child.mode, raw, child.sha))
            elif isinstance(child, dict):  # git sorts a folder as if its name ended in a slash
                rows.append((raw + b"/", FOLDER, raw, self._folder(child)))
        data = b"".join(mode.encode() + b" " + raw + b"\0" + bytes.fromhex(sha) for _, mode, raw, sha in sorted(rows))
        return self.add("tree", data)

    def commit(self, tree: str) -> str:
        """Add a commit without parents and return its id."""
        head = b"author " + IDENTITY + b"\ncommitter " + IDENTITY
        return self.add("commit", b"tree " + tree.encode() + b"\n" + head + b"\n\nbase\n")

    def pack(self) -> dict[str, bytes]:
        """Return the pack and its index, as paths below `.git` with their content."""
        body = bytearray(struct.pack(">4sLL", b"PACK", 2, len(self._objects)))
        rows: list[tuple[bytes, int, int]] = []
        for sha, (kind, data) in self._objects.items():
            raw = _pack_header(_KINDS[kind], len(data)) + zlib.compress(data, 1)
            rows.append((bytes.fromhex(sha), zlib.crc32(raw), len(body)))
            body += raw
        checksum = hashlib.sha1(body, usedforsecurity=False).digest()
        rows.sort()
        fanout = [sum(1 for sha, _, _ in rows if sha[0] <= first) for first in range(256)]
        index = b"\xfftOc" + struct.pack(">L", 2) + struct.pack(">256L", *fanout)
        index += b"".join(sha for sha, _, _ in rows)
        index += b"".join(struct.pack(">L", crc) for _, crc, _ in rows)
        index += b"".join(struct.pack(">L", offset) for _, _, offset in rows) + checksum
        index += hashlib.sha1(index, usedforsecurity=False).digest()
        name = f"objects/pack/pack-{checksum.hex()}"
        return {f"{name}.pack": bytes(body) + checksum, f"{name}.idx": index}


def _pack_header(kind: int, size: int) -> bytes:
    """Return the type and size of a packed object: 4 bits of size, then 7 bits a byte."""
    byte, size = (kind << 4) | (size & 15), size >> 4
    out = bytearray()
    while size:
        out.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    out.append(byte)
    return bytes(out)


def index_file(entries: Mapping[str, Entry]) -> bytes:
    """Return an index (version 2) without file times: git compares contents at its first look."""
    out = bytearray(struct.pack(">4sLL", b"DIRC", 2, len(entries)))
    for raw, entry in sorted((path.encode(), entry) for path, entry in entries.items()):
        head = struct.pack(">10L", 0, 0, 0, 0, 0, 0, int(entry.mode, 8), 0, 0, 0)
        row = head + bytes.fromhex(entry.sha) + struct.pack(">H", min(len(raw), 0xFFF)) + raw
        out += row + b"\0" * (8 - len(row) % 8)
    return bytes(out) + hashlib.sha1(out, usedforsecurity=False).digest()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A commit, its paths, and the files of a minimal `.git` that holds nothing else."""

    commit: str
    entries: dict[str, Entry]
    files: dict[str, bytes]
    """Content of the tree, path -> bytes."""
    git: dict[str, bytes]
    """Content of `.git`, path -> bytes."""


def snapshot(files: Mapping[str, str]) -> Snapshot:
    """Commit an inline tree; the same files always give the same commit."""
    raw = {path: text.encode("utf-8", "surrogateescape") for path, text in files.items()}
    store = ObjectStore()
    tree, entries = store.tree({path: Blob(mode=FILE, data=data) for path, data in raw.items()})
    commit = store.commit(tree)
    git = {
        "HEAD": b"ref: refs/heads/main\n",
        "config": CONFIG,
        "refs/heads/main": commit.encode() + b"\n",
        "index": index_file(entries),
        **store.pack(),
    }
    return Snapshot(commit=commit, entries=entries, files=raw, git=git)
