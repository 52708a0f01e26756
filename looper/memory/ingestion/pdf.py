"""PDF files as pages of text, with pypdf."""

from __future__ import annotations

import io
import re

from looper.errors import MachineError, StoreError
from looper.memory.ingestion.passages import Block, plain_blocks

MOST_PAGES = 1_000


def pdf_blocks(data: bytes, name: str) -> tuple[str, list[Block]]:
    """Return the title that the file gives itself ('' if none) and its paragraphs under the paths `page 1` ...

    Raises StoreError for a file that is damaged, locked, too long or without any text, MachineError without pypdf.
    """
    try:
        import pypdf
    except ImportError as error:
        raise MachineError(f"{name} is a PDF, which needs pypdf to read; pip install 'looper[pdf]'") from error
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if len(reader.pages) > MOST_PAGES:
            raise StoreError(f"{name} has {len(reader.pages)} pages, more than {MOST_PAGES}; split it")
        texts = [page.extract_text() for page in reader.pages]
        title = str(reader.metadata.title or "") if reader.metadata else ""
    except StoreError:
        raise
    except Exception as error:  # a damaged file makes pypdf fail in any way, also with KeyError or TypeError
        raise StoreError(f"{name} cannot be read as a PDF ({type(error).__name__}: {error})") from error
    if not any(text.strip() for text in texts):
        raise StoreError(f"{name} has {len(texts)} pages and no text; it may be scanned. Give a file with text")
    blocks = []
    for number, text in enumerate(texts, 1):
        # The extraction's line numbers are no lines of the file, so a page is all that can be said.
        for block in plain_blocks(_mended(text), path=(f"page {number}",)):
            blocks.append(Block(text=block.text, file=name, path=block.path))
    return " ".join(title.split()), blocks


def _mended(text: str) -> str:
    """Join words that were parted at the ends of lines."""
    return re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text.replace("\x00", ""))
