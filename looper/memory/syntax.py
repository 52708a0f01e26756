"""Python code as its syntax: a digest that formatting does not change, its knobs and its definitions."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from looper.memory.folding import Unfolded, Value, constants, literal_number
from looper.parsing import parsed

KNOB = re.compile(r"[A-Z][A-Z0-9_]*")
"""How the name of a module-level constant looks that an experiment may turn."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields of the tree that say nothing about what the code does."""


@dataclass(frozen=True)
class Code:
    """A piece of Python code; what is asked of it is worked out once."""

    text: str

    @cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree; None for code that does not parse."""
        try:
            with warnings.catch_warnings():  # an odd escape in a string is not this program's concern
                warnings.simplefilter("ignore")
                return parsed(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree; none for code that does not parse."""
        return tuple(ast.walk(self.tree)) if self.tree else ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (first 32 digits) of the normalised tree, or `text:` and that of the text, where it does not parse.

        Docstrings, comments, formatting, the order of keyword arguments and the spelling of
        constants (`2**14`, `16_384`, quotes) do not matter; the Python version does not either.
        """
        if self.tree is not None:
            try:
                return _hash(canonical(self.tree))
            except RecursionError:  # thousands of nested parts: the text is all that can be compared
                pass
        return "text:" + _hash("\n".join(line.rstrip() for line in self.text.strip().splitlines()))

    @cached_property
    def constants(self) -> dict[str, Value | Unfolded]:
        """Every module-level name with the value it has when the module has run, where that can be told."""
        if self.tree is None:
            return {}
        found = constants(self.tree.body)
        for node in self.nodes:
            if isinstance(node, ast.Global):  # a function may set it when it is called
                found.update((name, Unfolded("set by a function")) for name in node.names if name in found)
        return found

    @property
    def knobs(self) -> dict[str, Value | Unfolded]:
        """The ALL_CAPS constants of the module."""
        return {name: value for name, value in self.constants.items() if KNOB.fullmatch(name)}

    @cached_property
    def fields(self) -> dict[str, Value | Unfolded]:
        """Class attributes with a default, as `Class.name`."""
        out: dict[str, Value | Unfolded] = {}
        for name, node in self.definitions:
            if isinstance(node, ast.ClassDef):
                own = constants(node.body, self.constants)
                out.update((f"{name}.{key}", value) for key, value in own.items())
        return out

    @cached_property
    def definitions(self) -> tuple[tuple[str, Definition], ...]:
        """Classes and functions with their dotted names, in the order of the text."""
        return tuple(_definitions(self.tree, "")) if self.tree else ()

    @cached_property
    def aliases(self) -> dict[str, str]:
        """What imported names stand for: `F` for `torch.nn.functional`."""
        out: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                out.update((name.asname, name.name) for name in node.names if name.asname)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                out.update((name.asname or name.name, f"{node.module}.{name.name}") for name in node.names)
        return out

    def config(self) -> dict[str, Any]:
        """Return the resolved settings: every knob, and under `code` the digest of everything else.

        A value that the text alone does not decide is kept as its source text, marked with `=`.
        Two codes with the same config do the same, however their knobs are written.
        """
        if self.tree is None:
            return {"code": self.digest}
        rest = [node for node in self.tree.body if not _sets_knobs(node)]
        settings = {name: _plain(value) for name, value in sorted(self.knobs.items())}
        return {**settings, "code": _hash(canonical(ast.Module(body=rest, type_ignores=[])))}


@lru_cache(maxsize=64)
def _read(text: str) -> Code:
    return Code(text)


def code_of(code: Code | str) -> Code:
    """Return the code itself, or a text as code; the last texts read are remembered."""
    return _read(code) if isinstance(code, str) else code


def digest(code: Code | str) -> str:
    """Return the digest of a code's normalised syntax tree (see `Code.digest`)."""
    return code_of(code).digest


def canonical(node: ast.AST) -> str:
    """Return a text that is the same for two trees if and only if they differ in nothing that counts."""
    number = literal_number(node) if isinstance(node, ast.Constant | ast.UnaryOp | ast.BinOp) else None
    if number is not None:
        return f"{type(number).__name__}:{number:x}" if isinstance(number, int) else f"float:{number!r}"
    parts = []
    for name, value in ast.iter_fields(node):
        if name in _SILENT or value is None or value == []:
            continue
        if name in ("body", "orelse", "finalbody") and isinstance(value, list):
            value = statements(value)
        elif name == "keywords":
            value = sorted(
                value, key=lambda word: (word.arg is None, word.arg or "")
            )  # `**rest` stay last, in their order
        parts.append(f"{name}={_text(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def statements(body: list[Any]) -> list[Any]:
    """Return the statements of a body that do something: no docstrings or other lone constants, no idle `pass`."""
    return [
        node
        for node in body
        if not isinstance(node, ast.Pass) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def _text(value: object) -> str:
    if isinstance(value, ast.AST):
        return canonical(value)
    if isinstance(value, list):
        return "[" + ",".join(_text(item) for item in value) + "]"
    return f"{type(value).__name__}:{value!r}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
            yield from _definitions(child, f"{prefix}{child.name}.")
        else:
            yield from _definitions(child, prefix)


def _sets_knobs(node: ast.stmt) -> bool:
    """Tell whether a statement does nothing but set ALL_CAPS names."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    names = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.expr)]
    return bool(names) and all(
        isinstance(part, ast.Tuple | ast.List) or (isinstance(part, ast.Name) and bool(KNOB.fullmatch(part.id)))
        for part in names
    )


def _plain(value: Value | Unfolded) -> Any:
    """Return a value as JSON has it: tuples as lists, what JSON has no word for as its text."""
    if isinstance(value, Unfolded):
        return f"= {value.source}"
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and abs(value) < float("inf") else repr(value)
