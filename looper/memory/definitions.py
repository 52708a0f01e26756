"""The definitions and constants of a source file, and what each mentions and calls."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from looper.memory.folding import Unfolded
from looper.memory.syntax import KNOB, Code, Definition

GRAMMARS = {
    ".c": "tree_sitter_c",
    ".h": "tree_sitter_c",
    ".cc": "tree_sitter_cpp",
    ".cpp": "tree_sitter_cpp",
    ".hpp": "tree_sitter_cpp",
    ".cu": "tree_sitter_cpp",
    ".cuh": "tree_sitter_cpp",
    ".js": "tree_sitter_javascript",
    ".rs": "tree_sitter_rust",
    ".go": "tree_sitter_go",
}
"""Packages of the extra `code`, by the suffix of the files that they read; CUDA is read as C++."""

_KINDS = frozenset({
    "function_definition", "function_declaration", "function_item", "method_definition", "method_declaration",
    "class_declaration", "class_specifier", "struct_specifier", "struct_item", "enum_specifier", "enum_item",
    "trait_item", "type_spec", "const_item", "preproc_function_def", "preproc_def",
})  # fmt: skip
_NAMES = frozenset({"identifier", "field_identifier", "type_identifier", "property_identifier", "namespace_identifier"})
_LONGEST = 120
"""Characters of a definition's first line that the map shows."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A definition or a constant."""

    path: str
    name: str
    """With the names of what holds it: `GPT.forward`; '' for the statements outside all definitions."""
    line: int
    head: str
    """How the map shows it; '' for what only ranks others."""
    depth: int = 0
    mentions: Counter[str] = field(default_factory=Counter)
    """Names that it speaks of, outside the definitions inside it."""
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def last(self) -> str:
        """Its own name."""
        return self.name.rpartition(".")[2]


def entries_of(path: str, text: str) -> tuple[list[Entry], str]:
    """Return the entries of a file, and why there are none if it cannot be read."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".py":
        return _python(path, text)
    if suffix not in GRAMMARS:
        return [], f"not mapped: no grammar for {suffix or 'files without a suffix'}"
    try:
        parser = _parser(GRAMMARS[suffix])
    except ImportError:
        return [], "not mapped: needs tree-sitter, pip install 'looper[code]'"
    source = text.encode()
    return list(_walked(path, source, parser.parse(source).root_node, "", 0)), ""


def _python(path: str, text: str) -> tuple[list[Entry], str]:
    code = Code(text)
    if code.tree is None:
        return [], "not mapped: it does not parse as Python"
    entries = []
    for name, value in code.constants.items():
        if KNOB.fullmatch(name):
            shown = value.source if isinstance(value, Unfolded) else repr(value)
            line = next(_lines(code.tree, name), 1)
            entries.append(Entry(path=path, name=name, line=line, head=_cut(f"{name} = {shown}")))
    entries.append(_entry(path, "", code.tree, line=1, head=""))
    entries += [_entry(path, name, node, line=node.lineno, head=_cut(_head(node))) for name, node in code.definitions]
    return entries, ""


def _entry(path: str, name: str, node: ast.AST, *, line: int, head: str) -> Entry:
    own = list(_own(node))
    called = [_name(part.func) for part in own if isinstance(part, ast.Call)]
    return Entry(
        path=path,
        name=name,
        line=line,
        head=head,
        depth=name.count("."),
        mentions=Counter(word for part in own if (word := _name(part))),
        calls=Counter(word for word in called if word),
    )


def _lines(tree: ast.Module, name: str) -> Iterator[int]:
    """Yield the lines that give a name a value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store):
            yield node.lineno


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a definition without those of the definitions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Definition):
            yield child
            yield from _own(child)


def _head(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in [*node.bases, *node.keywords])
        return f"class {node.name}({bases}):" if bases else f"class {node.name}:"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{word} {node.name}({ast.unparse(node.args)}){returns}:"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


# ---------------------------------------------------------------- other languages


def _parser(package: str) -> Any:
    tree_sitter = importlib.import_module("tree_sitter")
    grammar = importlib.import_module(package)
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))


def _walked(path: str, source: bytes, node: Any, prefix: str, depth: int) -> Iterator[Entry]:
    for child in node.children:
        name = _named(child) if child.type in _KINDS else ""
        if not name:
            yield from _walked(path, source, child, prefix, depth)
            continue
        body = child.child_by_field_name("body")
        end = body.start_byte if body else child.end_byte
        own = list(_inside(child))
        yield Entry(
            path=path,
            name=prefix + name,
            line=child.start_point[0] + 1,
            head=_cut(source[child.start_byte : end].decode(errors="replace").split("\n\n")[0].strip()),
            depth=depth,
            mentions=Counter(part.text.decode() for part in own if part.type in _NAMES),
            calls=Counter(word for part in own if part.type == "call_expression" and (word := _callee(part))),
        )
        yield from _walked(path, source, child, f"{prefix}{name}.", depth + 1)


def _named(node: Any) -> str:
    """Return the name that a node defines: its own, or the innermost of its declarators (C writes `int *f(int x)`)."""
    found = node.child_by_field_name("name")
    while found is None and (inner := node.child_by_field_name("declarator")) is not None:
        node = inner
        found = node if node.type in _NAMES else node.child_by_field_name("name")
    return found.text.decode() if found is not None else ""


def _callee(node: Any) -> str:
    function = node.child_by_field_name("function")
    names = [part for part in _leaves(function) if part.type in _NAMES] if function else []
    return names[-1].text.decode() if names else ""


def _inside(node: Any) -> Iterator[Any]:
    for child in node.children:
        if not (child.type in _KINDS and _named(child)):
            yield child
            yield from _inside(child)


def _leaves(node: Any) -> Iterator[Any]:
    if not node.children:
        yield node
    for child in node.children:
        yield from _leaves(child)
