"""Markdown as blocks under their headings."""

from __future__ import annotations

from looper.memory.ingestion.passages import Block, lines_of


def markdown_blocks(text: str, *, file: str = "") -> list[Block]:
    """Return the blocks of a Markdown text (CommonMark and tables): paragraphs, lists, tables, fenced code."""
    from markdown_it import MarkdownIt

    lines = lines_of(text)
    path: list[tuple[int, str]] = []
    blocks = []
    tokens = MarkdownIt("commonmark").enable("table").disable("inline").parse("\n".join(lines))
    for number, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        first, end = token.map
        if token.type == "heading_open":
            depth = int(token.tag[1:])
            path = [*(one for one in path if one[0] < depth), (depth, tokens[number + 1].content.strip())]
            continue
        while end > first and not lines[end - 1].strip():
            end -= 1
        names = tuple(words for _, words in path if words)
        body = "\n".join(line.rstrip() for line in lines[first:end])
        blocks.append(Block(text=body, first=first + 1, last=end, file=file, path=names))
    return blocks


def first_heading(text: str) -> str:
    """Return the first heading of a Markdown text, '' if it has none."""
    return next((block.path[0] for block in markdown_blocks(text) if block.path), "")
