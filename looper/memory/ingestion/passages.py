"""Passages: texts of any kind as chunks of about 60 to 120 words, each with the place where it stands."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from looper.memory.ingestion.names import names_in
from looper.memory.rows import Chunk

SMALLEST = 60
"""Words that a passage is filled up to, where its section has as many."""
LARGEST = 120
"""Most words of a passage."""
LETTERS = 12
"""Letters that count as one word at least: code and tables have long words, and some files have no blanks at all."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\[\"'`\\])")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, a definition, a table: what belongs together before sizes are looked at."""

    text: str
    first: int = 0
    """Its first line in the file, from 1; 0 where lines mean nothing."""
    last: int = 0
    file: str = ""
    path: tuple[str, ...] = ()
    """Headings above it, outermost first; blocks of one path may share a passage."""
    label: str = ""
    """Name that its source gives it, e.g. `tab:ablation`."""
    title: str = ""
    """Words that name it best; '' takes the innermost heading."""
    names: frozenset[str] | None = None
    """Names of the code that it is a part of; None for prose."""


def lines_of(text: str) -> list[str]:
    """Return the lines as editors and git number them: form feeds and other separators end none."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def size_of(text: str) -> int:
    """Return the number of words, long ones counted as several."""
    return max(len(text.split()), math.ceil(len(text) / LETTERS))


def sha_of(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts; where one ends and the next begins matters."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode(errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def packed(blocks: Iterable[Block]) -> list[Chunk]:
    """Fill passages with the blocks, in order; headings, labels and files are never mixed in one."""
    chunks = []
    for _, same in groupby(blocks, key=lambda b: (b.file, b.path, b.label, b.title)):
        pieces = [piece for block in same if block.text.strip() for piece in _pieces(block)]
        chunks += [_chunk(group) for group in _groups(pieces)]
    return chunks


def plain_blocks(text: str, *, file: str = "", path: tuple[str, ...] = (), code: bool = False) -> list[Block]:
    """Return the paragraphs of a text: what blank lines part. Names are all words if it is code."""
    names = frozenset(re.findall(r"[A-Za-z_]\w*", text)) if code else None
    blocks: list[Block] = []
    held: list[str] = []
    for number, line in enumerate([*lines_of(text), ""], 1):
        if line.strip():
            held.append(line.rstrip())
        elif held:
            first = number - len(held)
            blocks.append(Block(text="\n".join(held), first=first, last=number - 1, file=file, path=path, names=names))
            held = []
    return blocks


def _groups(pieces: list[Block]) -> list[list[Block]]:
    groups: list[list[Block]] = []
    size = 0
    for piece in pieces:
        more = size_of(piece.text)
        if groups and size + more <= LARGEST:
            groups[-1].append(piece)
            size += more
        else:
            groups.append([piece])
            size = more
    if len(groups) > 1 and size < SMALLEST // 2:
        # A few words left over are worth more beside what they end than alone.
        rest = groups.pop()
        groups[-1] += rest
    return groups


def _pieces(block: Block) -> Iterator[Block]:
    """Cut a block that is too long: at ends of lines, best where a sentence ends too."""
    if size_of(block.text) <= LARGEST:
        yield block
        return
    lines = block.text.split("\n")
    numbered = len(lines) == block.last - block.first + 1
    start = 0
    while start < len(lines):
        end = _cut(lines, start, prose=block.names is None)
        text = "\n".join(lines[start:end])
        piece = replace(block, text=text)
        if numbered:
            piece = replace(piece, first=block.first + start, last=block.first + end - 1)
        if size_of(text) <= LARGEST:
            yield piece
        else:
            yield from (replace(piece, text=part) for part in _parts(text))
        start = end


def _cut(lines: list[str], start: int, *, prose: bool) -> int:
    """Return where a piece that begins at `start` ends: after as many lines as fit, at least one."""
    size, best = 0, start
    for end in range(start, len(lines)):
        size += size_of(lines[end])
        if size > LARGEST and end > start:
            return best if best > start else end
        if prose and size >= SMALLEST and lines[end].rstrip().endswith((".", "!", "?", ":")):
            best = end + 1
    return len(lines)


def _parts(line: str) -> Iterator[str]:
    """Cut one long line at sentences, a long sentence at blanks, a long word anywhere."""
    held: list[str] = []
    size = 0
    for unit in _units(line):
        more = size_of(unit)
        if held and size + more > LARGEST:
            yield " ".join(held)
            held, size = [], 0
        held.append(unit)
        size += more
    if held:
        yield " ".join(held)


def _units(line: str) -> Iterator[str]:
    widest = LARGEST * LETTERS
    for sentence in _SENTENCE.split(line):
        if size_of(sentence) <= LARGEST:
            yield sentence
            continue
        for word in sentence.split():
            yield from (word[at : at + widest] for at in range(0, len(word), widest))


def _chunk(group: list[Block]) -> Chunk:
    block = group[0]
    body = "\n\n".join(piece.text.strip("\n") for piece in group).strip()
    names = dict.fromkeys(name for piece in group for name in names_in(piece.text, piece.names))
    if block.file:
        names = dict.fromkeys([block.file, *names])
    return Chunk(
        locator=_locator(block, group[-1].last),
        title=block.title or (block.path[-1] if block.path else block.file),
        body=body,
        identifiers=" ".join(names),
    )


def _locator(block: Block, last: int) -> str:
    lines = f"{block.first}-{last}" if block.first else ""
    place = f"{block.file}:{lines}".rstrip(":") if block.file else f"lines {lines}" if lines else ""
    label = f"({block.label})" if block.label else ""
    return " ".join(part for part in (place, " > ".join(block.path), label) if part)
