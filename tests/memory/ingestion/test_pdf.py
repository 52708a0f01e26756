import pytest

from looper.errors import StoreError
from looper.memory.ingestion.passages import packed
from looper.memory.ingestion.pdf import pdf_blocks
from tests.memory.ingestion.sources import pdf


def test_pages_are_places_and_parted_words_are_joined():
    title, blocks = pdf_blocks(pdf("Gated units improve trans-\nformers.", "", "The end.", title="On  gates"), "p.pdf")
    chunks = packed(blocks)
    assert title == "On gates"
    assert [(c.locator, c.body) for c in chunks] == [
        ("p.pdf page 1", "Gated units improve transformers."),
        ("p.pdf page 3", "The end."),
    ]


def test_what_cannot_be_read_is_named():
    with pytest.raises(StoreError, match=r"p\.pdf cannot be read as a PDF"):
        pdf_blocks(b"%PDF-1.4 nonsense", "p.pdf")
    with pytest.raises(StoreError, match="2 pages and no text; it may be scanned"):
        pdf_blocks(pdf("", ""), "p.pdf")
