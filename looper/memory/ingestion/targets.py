"""One door for everything that the memory reads: arXiv, GitHub, folders and files become papers and passages."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from looper.errors import ConfigError, StoreError
from looper.memory.ingestion import archives
from looper.memory.ingestion.arxiv import Arxiv, arxiv_id, source_blocks
from looper.memory.ingestion.fetching import Fetcher
from looper.memory.ingestion.files import LATEX, MARKDOWN, decoded, file_blocks, suffix_of
from looper.memory.ingestion.folders import FolderLimits, listed, read_folder, utf8
from looper.memory.ingestion.headings import first_heading
from looper.memory.ingestion.latex import inlined, title_of
from looper.memory.ingestion.passages import Block, packed, sha_of
from looper.memory.ingestion.pdf import pdf_blocks
from looper.memory.ingestion.repository import clone_address, read_repository
from looper.memory.rows import Chunk, Origin, Paper, Scope

LOG = logging.getLogger(__name__)

KNOWN = (
    "an arXiv id or address (2002.05202, arxiv:cs/0112017, https://arxiv.org/abs/2002.05202v1)",
    "a repository (https://github.com/OWNER/NAME, git@github.com:OWNER/NAME, file:///..., https://.../NAME.git)",
    "a folder",
    "a file (text, Markdown, code, LaTeX, PDF, or a paper's source as .tar.gz)",
)
"""What can be ingested, for people."""


def ingest(
    target: str,
    *,
    arxiv: Arxiv | None = None,
    scope: Scope = "",
    limits: FolderLimits | None = None,
    notice: Callable[[str], None] = LOG.info,
) -> Iterator[tuple[Paper, list[Chunk]]]:
    """Yield what `target` names as papers with their passages, ready for the store.

    A folder is one paper, and every PDF below it another. What exists as a path is taken for one; `arxiv:` before an
    id takes it for arXiv's. `arxiv` looks papers up (default: arXiv itself, answers remembered for a day); `notice`
    hears one line for each source: how much was read and what was skipped. Raises ConfigError for a target of no known
    kind, StoreError for one that cannot be read, MachineError where network, git or a library is missing.
    """
    path = Path(target).expanduser()
    if target and "://" not in target and path.is_dir():
        reading = None
        papers = [path / name for name in listed(path) if suffix_of(name) == ".pdf" and not (path / name).is_symlink()]
        try:
            reading = read_folder(path, scope=scope, limits=limits)
        except StoreError:
            if not papers:
                raise
        if reading is not None:
            notice(reading.summary)
            yield reading.paper, reading.chunks
        for file in papers:
            try:
                yield _file(file, scope, notice)
            except StoreError as error:
                notice(f"skipped: {error}")
    elif target and "://" not in target and path.is_file():
        yield _file(path, scope, notice)
    elif identifier := arxiv_id(target):
        paper, chunks = (arxiv or Arxiv(Fetcher(cache=_cache()))).paper(identifier, scope=scope)
        notice(f"{paper.id}: {len(chunks)} passages")
        yield paper, chunks
    elif clone_address(target):
        reading = read_repository(target, scope=scope, limits=limits)
        notice(reading.summary)
        yield reading.paper, reading.chunks
    else:
        raise ConfigError(f"{target!r} is {_guess(target)}; give " + "; or ".join(KNOWN))


def _cache() -> Path:
    """Return the user's folder for what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "looper" / "arxiv"


def _guess(target: str) -> str:
    """Say what a target that cannot be ingested looks like."""
    if not target.strip():
        return "empty"
    host = (urlsplit(target).hostname or "") if "://" in target else ""
    if host.removeprefix("www.") == "github.com":
        return "an address inside a repository of GitHub, not of one"
    if host.endswith("arxiv.org"):
        return "an address of arXiv, but not of a paper"
    if host:
        return "an address of another site"
    return "neither an existing path nor a name that is known"


def _file(path: Path, scope: Scope, notice: Callable[[str], None]) -> tuple[Paper, list[Chunk]]:
    """Read one file."""
    limit = archives.Limits().entry_bytes
    if (size := path.stat().st_size) > limit:
        raise StoreError(f"{path} has {size:,} bytes, more than {limit:,}; give the part that matters")
    data = path.read_bytes()
    title, blocks = _contents(data, utf8(path.name))
    chunks = packed(blocks)
    if not chunks:
        raise StoreError(f"{path} holds no text; give a file with some")
    place = utf8(str(path.resolve()))
    paper = Paper(
        id=f"file:{place}",
        origin=Origin.FILE,
        title=title or utf8(path.name),
        sha=sha_of(block.text for block in blocks),
        scope=scope,
    )
    notice(f"{paper.id}: {len(chunks)} passages")
    return paper, chunks


def _contents(data: bytes, name: str) -> tuple[str, list[Block]]:
    """Return a file's title and blocks, by its first bytes where they tell and else by its name."""
    if data.startswith(archives.PDF):
        return pdf_blocks(data, name)
    if data.startswith(archives.GZIP) or suffix_of(name) == ".tar":
        blocks = source_blocks(data, name)
        if not blocks:
            raise StoreError(f"{name} holds no LaTeX paper; unpack it and give the folder")
        return "", blocks
    text = decoded(data, name)
    if suffix_of(name) in MARKDOWN:
        return first_heading(text), file_blocks(text, name)
    if suffix_of(name) in LATEX:
        return title_of(inlined({name: text}, name)), file_blocks(text, name)
    return "", file_blocks(text, name)
