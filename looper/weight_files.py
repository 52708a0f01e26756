"""Identity of weight files: by all of a file, or by samples of a very large one."""

from __future__ import annotations

import hashlib
from pathlib import Path

WHOLE = 256 * 2**20
"""Bytes up to which a file is hashed whole."""
EDGE = 4 * 2**20
"""Bytes hashed at each end of a larger file: its header, and where it ends."""
STRIDE, BLOCK = 2**20, 2**16
"""Of what is between, the first BLOCK bytes of every STRIDE are hashed: a merged adapter changes whole matrices."""


def file_digest(path: Path) -> str:
    """Return a digest of a file's content; of one above WHOLE, of its size and a sixteenth of its content."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size <= WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        found = hashlib.sha256(stream.read(EDGE))
        for place in range(EDGE, size - EDGE, STRIDE):
            stream.seek(place)
            found.update(stream.read(BLOCK))
        stream.seek(-EDGE, 2)
        found.update(stream.read() + str(size).encode())
        return found.hexdigest()
