"""arXiv's Atom feeds, in the shape they had until 2025 and in the one since."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from looper.errors import StoreError
from looper.records import Record

ATOM = "{http://www.w3.org/2005/Atom}"
OPENSEARCH = "{http://a9.com/-/spec/opensearch/1.1/}"
ARXIV = "{http://arxiv.org/schemas/atom}"

_ID = r"(?:\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})"
ID = re.compile(rf"(?P<id>{_ID})(?P<version>v[1-9]\d*)?")
"""An identifier of arXiv, new (`2002.05202v1`) or old (`cs/0112017`)."""


class Entry(Record):
    """What arXiv says about a paper."""

    id: str
    """Without its version."""
    version: str
    """`v1`, `v2` ...; '' where the feed does not tell."""
    title: str
    summary: str
    authors: tuple[str, ...] = ()
    published: str = ""
    updated: str = ""
    primary_category: str = ""
    categories: tuple[str, ...] = ()
    comment: str = ""
    journal: str = ""
    doi: str = ""


class Feed(Record):
    """One page of answers."""

    total: int
    """Answers on all pages together."""
    start: int
    entries: tuple[Entry, ...]


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type: feeds have none, and entities defined in one can grow without end."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise StoreError(f"the feed declares a document type {name!r}, as no feed of arXiv does; it is not read")


def read_feed(data: bytes, where: str) -> Feed:
    """Read a page of answers; an unknown identifier gives one without entries, in either shape.

    Raises StoreError for malformed XML, for anything that is no feed, and with arXiv's words for an entry titled Error.
    """
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Builder()))
    except ElementTree.ParseError as error:
        raise StoreError(f"{where} sent malformed XML ({error}): {data[:80]!r}; try again later") from error
    if root.tag != f"{ATOM}feed":
        raise StoreError(f"{where} sent <{root.tag}> where an Atom feed was expected; check the address")
    entries = tuple(_entries(root, where))
    return Feed(
        total=_number(root, "totalResults", len(entries), where),
        start=_number(root, "startIndex", 0, where),
        entries=entries,
    )


def _entries(root: ElementTree.Element, where: str) -> Iterator[Entry]:
    for node in root.iter(f"{ATOM}entry"):
        title, address = _text(node, f"{ATOM}title"), _text(node, f"{ATOM}id")
        if title == "Error" or "/api/errors" in address:
            raise StoreError(f"{where} refused the question: {_text(node, f'{ATOM}summary') or 'no reason given'}")
        match = re.search(rf"(?:/abs/|^){ID.pattern}$", address)
        if match is None or not title:
            raise StoreError(f"{where} sent an entry with the id {address!r} and the title {title!r}; both are needed")
        primary = node.find(f"{ARXIV}primary_category")
        yield Entry(
            id=match["id"],
            version=match["version"] or "",
            title=title,
            summary=_text(node, f"{ATOM}summary"),
            authors=tuple(name for author in node.iter(f"{ATOM}author") if (name := _text(author, f"{ATOM}name"))),
            published=_text(node, f"{ATOM}published"),
            updated=_text(node, f"{ATOM}updated"),
            primary_category="" if primary is None else primary.get("term", ""),
            categories=tuple(term for one in node.iter(f"{ATOM}category") if (term := one.get("term"))),
            comment=_text(node, f"{ARXIV}comment"),
            journal=_text(node, f"{ARXIV}journal_ref"),
            doi=_text(node, f"{ARXIV}doi"),
        )


def _text(node: ElementTree.Element, tag: str) -> str:
    return " ".join((node.findtext(tag) or "").split())


def _number(root: ElementTree.Element, name: str, otherwise: int, where: str) -> int:
    text = _text(root, f"{OPENSEARCH}{name}")
    if not text:
        return otherwise
    if not re.fullmatch(r"\d{1,12}", text):
        raise StoreError(f"{where} sent {name} {text!r} where a number was expected; try again later")
    return int(text)
