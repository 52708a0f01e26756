"""Single files as blocks, each kind in its own way: Markdown, Python, LaTeX, notebooks, other code, plain text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath

from looper.errors import StoreError
from looper.memory.ingestion.definitions import python_blocks
from looper.memory.ingestion.headings import markdown_blocks
from looper.memory.ingestion.latex import inlined, latex_blocks
from looper.memory.ingestion.passages import Block, plain_blocks

MARKDOWN = frozenset({".md", ".markdown", ".mdx"})
PYTHON = frozenset({".py", ".pyi"})
TEXT = frozenset({".txt", ".rst", ".org", ".adoc", ""})
LATEX = frozenset({".tex", ".ltx"})
NOTEBOOK = frozenset({".ipynb"})
CODE = frozenset(
    ".c .cc .cpp .cu .cuh .cxx .go .h .hh .hpp .hs .java .jl .js .jsx .kt .lua .m .metal .mjs .ml .nim .php .pl .ps1 "
    ".r .rb .rs .scala .sh .sql .swift .ts .tsx .zig .cfg .ini .toml .yaml .yml .cmake .mk .proto .triton".split()
)
KINDS = MARKDOWN | PYTHON | TEXT | LATEX | NOTEBOOK | CODE
"""Suffixes of files that are read; '' are those without one, such as README and Makefile."""


def suffix_of(name: str) -> str:
    """Return a file's suffix, lower case."""
    return PurePosixPath(name).suffix.lower()


def decoded(data: bytes, name: str) -> str:
    """Return a file's text. Raises StoreError for a binary file and for text that is not UTF-8."""
    if b"\x00" in data:
        raise StoreError(f"{name} is a binary file; give a text, a PDF or a folder")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start}); convert it first"
        ) from error


def file_blocks(text: str, name: str) -> list[Block]:
    """Return the blocks of a text file by the kind that its suffix tells."""
    suffix = suffix_of(name)
    if suffix in MARKDOWN:
        return markdown_blocks(text, file=name)
    if suffix in PYTHON:
        return python_blocks(text, file=name)
    if suffix in LATEX:
        return latex_blocks(inlined({name: text}, name))
    if suffix in NOTEBOOK:
        return _notebook_blocks(text, name)
    return plain_blocks(text, file=name, code=suffix in CODE)


def _notebook_blocks(text: str, name: str) -> list[Block]:
    """Return the cells of a Jupyter notebook without what they printed; the raw text if it is none."""
    try:
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return plain_blocks(text, file=name)
    blocks: list[Block] = []
    for number, (kind, source) in enumerate(cells, 1):
        inner = markdown_blocks(source) if kind == "markdown" else python_blocks(source)
        path = (f"cell {number}",)
        blocks += [replace(block, file=name, path=(*path, *block.path), first=0, last=0) for block in inner]
    return blocks
