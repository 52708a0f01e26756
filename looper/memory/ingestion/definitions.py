"""Python code as blocks: functions, classes, methods, and what stands between them; small ones share a block."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from looper.memory.ingestion.passages import LARGEST, SMALLEST, Block, lines_of, plain_blocks, size_of
from looper.memory.syntax import Code

_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def python_blocks(text: str, *, file: str = "") -> list[Block]:
    """Return a Python file's definitions and the code between them; paragraphs where it cannot be parsed."""
    tree = Code(text).tree
    if tree is None:
        return plain_blocks(text, file=file, code=True)
    lines = lines_of(text)
    names = frozenset(_names(tree))
    return [_block(parts, lines, file, names) for parts in _together(_parts(tree.body, lines, 1, len(lines), ()))]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Lines of a file: a definition, or what stands between definitions (`name` is '')."""

    path: tuple[str, ...]
    """Classes that it is in."""
    name: str
    first: int
    last: int
    size: int


def _parts(body: Sequence[ast.stmt], lines: list[str], first: int, last: int, path: tuple[str, ...]) -> Iterator[_Part]:
    """Walk a body from line `first` to `last`; a class is walked likewise, a function stays whole."""
    start = first
    for node in body:
        if not isinstance(node, _DEFINES):
            continue
        top = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        while top > start and lines[top - 2].lstrip().startswith("#"):
            top -= 1  # comments right above a definition are its own
        yield from _between(lines, start, top - 1, path, "")
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.ClassDef) and any(isinstance(child, _DEFINES) for child in node.body):
            yield from _parts(node.body, lines, top, end, (*path, node.name))
        else:
            yield from _between(lines, top, end, path, node.name)
        start = end + 1
    yield from _between(lines, start, last, path, "")


def _between(lines: list[str], first: int, last: int, path: tuple[str, ...], name: str) -> Iterator[_Part]:
    while first <= last and not lines[first - 1].strip():
        first += 1
    while last >= first and not lines[last - 1].strip():
        last -= 1
    if first <= last:
        size = size_of("\n".join(lines[first - 1 : last]))
        yield _Part(path=path, name=name, first=first, last=last, size=size)


def _together(parts: Iterable[_Part]) -> list[list[_Part]]:
    """Put small neighbours of one class or module together, as far as a passage has room."""
    groups: list[list[_Part]] = []
    size = 0
    for part in parts:
        small = groups and min(size, part.size) < SMALLEST and size + part.size <= LARGEST
        if small and groups[-1][-1].path == part.path:
            groups[-1].append(part)
            size += part.size
        else:
            groups.append([part])
            size = part.size
    return groups


def _block(parts: list[_Part], lines: list[str], file: str, names: frozenset[str]) -> Block:
    first, last = parts[0].first, parts[-1].last
    path = parts[0].path
    defined = [part.name for part in parts if part.name]
    if defined:
        path = (*path, ", ".join(defined))
    return Block(
        text="\n".join(line.rstrip() for line in lines[first - 1 : last]),
        first=first,
        last=last,
        file=file,
        path=path,
        title=".".join(path),
        names=names,
    )


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield from (*name.split("."), *([other] if other else []))
            case _:
                pass
