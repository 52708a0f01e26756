"""Papers of arXiv: what its API says of them, their LaTeX source, or the PDF where there is none."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from looper.errors import ConfigError, StoreError
from looper.memory.ingestion import archives, latex
from looper.memory.ingestion.atom import ID, Entry, Feed, read_feed
from looper.memory.ingestion.fetching import Fetcher
from looper.memory.ingestion.passages import Block, packed, sha_of
from looper.memory.ingestion.pdf import pdf_blocks
from looper.memory.rows import Chunk, Origin, Paper, Scope

SITE = "https://export.arxiv.org"
"""arXiv's address for programs."""
PAGE = 100
"""Answers asked for at a time; arXiv allows 2,000."""
MOST = 30_000
"""Answers to one question that arXiv gives out."""
_TEXTS = (".tex", ".ltx", ".latex", ".txt", ".bbl")


def arxiv_id(text: str) -> str:
    """Return the identifier, with its version if given, that a text or address names; '' if it names none."""
    text = text.strip()
    if "://" in text:
        parts = urlsplit(text)
        host = (parts.hostname or "").removeprefix("www.")
        kind, _, rest = parts.path.lstrip("/").partition("/")
        if host not in ("arxiv.org", "export.arxiv.org") or kind not in ("abs", "pdf", "src", "html", "e-print"):
            return ""
        text = rest.rstrip("/").removesuffix(".pdf")
    text = re.sub(r"^arxiv:\s*", "", text, flags=re.IGNORECASE)
    return text if ID.fullmatch(text) else ""


class Arxiv:
    """Looks papers up and reads them."""

    def __init__(self, fetcher: Fetcher, *, site: str = SITE) -> None:
        """Every request goes through `fetcher`, which keeps arXiv's pace."""
        self._fetcher = fetcher
        self._site = site.rstrip("/")

    def entry(self, identifier: str) -> Entry:
        """Return what arXiv says of a paper. Raises StoreError if it does not know it."""
        entries = self._page({"id_list": identifier, "max_results": "1"}).entries
        if not entries:
            raise StoreError(f"arXiv knows no paper {identifier!r}; check the number and its version")
        return entries[0]

    def search(self, question: str, *, limit: int = 20) -> Iterator[Entry]:
        """Yield up to `limit` papers that answer a question in arXiv's own language (`ti:muon AND cat:cs.LG`)."""
        if not 1 <= limit <= MOST:
            raise ConfigError(f"{limit} answers were asked for; arXiv gives 1 to {MOST:,} to one question")
        start = 0
        while start < limit:
            size = min(PAGE, limit - start)
            page = self._page({"search_query": question, "start": str(start), "max_results": str(size)})
            yield from page.entries[:size]
            start += len(page.entries)
            if not page.entries or start >= page.total:
                return

    def paper(self, identifier: str, *, scope: Scope = "") -> tuple[Paper, list[Chunk]]:
        """Return a paper with its abstract and its text, from the source if that can be had, else from the PDF.

        Raises StoreError for what cannot be read, MachineError if arXiv does not answer or pypdf is needed and missing.
        """
        entry = self.entry(identifier)
        asked = ID.fullmatch(identifier)
        version = entry.version or (asked["version"] if asked and asked["version"] else "")
        name = f"{entry.id}{version}"
        blocks = self._text(name)
        # Sources hold the abstract too; the feed's has no markup, and it is there if nothing else can be read.
        blocks = [Block(text=entry.summary, path=("Abstract",)), *(b for b in blocks if b.path != ("Abstract",))]
        paper = Paper(
            id=f"arxiv:{name}",
            origin=Origin.ARXIV,
            title=entry.title,
            version=version,
            url=f"https://arxiv.org/abs/{name}",
            authors=entry.authors,
            sha=sha_of([entry.title, *(block.text for block in blocks)]),
            scope=scope,
        )
        return paper, packed(blocks)

    def _page(self, parameters: dict[str, str]) -> Feed:
        url = f"{self._site}/api/query"
        answer = self._fetcher.get(url, parameters)
        # arXiv answers a malformed question with status 400 and a feed that says why.
        if not answer.ok and b"<feed" not in answer.body:
            raise StoreError(f"{url} answered with status {answer.status} to {parameters}; check the question")
        return read_feed(answer.body, url)

    def _text(self, name: str) -> list[Block]:
        source = self._fetcher.get(f"{self._site}/src/{name}")
        if source.ok and source.body.startswith((archives.GZIP, archives.PDF)):
            blocks = source_blocks(source.body, f"{posixpath.basename(name)}.tex")
            if blocks:
                return blocks
        answer = self._fetcher.get(f"{self._site}/pdf/{name}")
        if not answer.ok or not answer.body.startswith(archives.PDF):
            raise StoreError(
                f"arXiv has neither source nor PDF of {name} (status {source.status} and {answer.status}); it may be "
                "withdrawn. Try an earlier version"
            )
        return pdf_blocks(answer.body, f"{posixpath.basename(name)}.pdf")[1]


def source_blocks(data: bytes, name: str) -> list[Block]:
    """Return the blocks of a paper's source: an archive, one gzipped LaTeX file, or a PDF; none if it is neither."""
    files = archives.unpack(data, name)
    if list(files) == [f"{name}.pdf"]:
        return pdf_blocks(files[f"{name}.pdf"], name.removesuffix(".tex") + ".pdf")[1]
    texts = {
        path: _decoded(body)
        for path, body in files.items()
        if path.lower().endswith(_TEXTS) and b"\x00" not in body[:8192]
    }
    if not any("\\document" in text for text in texts.values()):
        return []
    return latex.latex_blocks(latex.inlined(texts, latex.main_file(texts)))


def _decoded(data: bytes) -> str:
    """Read UTF-8, or else Latin-1, in which many older papers are written."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
