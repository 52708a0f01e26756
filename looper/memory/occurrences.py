"""Where things stand in Python code: names, calls, assignments, imports, and patterns of syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from looper.memory.syntax import Code, canonical, statements
from looper.parsing import parsed

ANYTHING = "_"
"""Name that stands for any expression or statement in a pattern."""

_IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def nodes(code: Code, within: str) -> Iterator[ast.AST]:
    """Yield every node of the module, or of the classes and functions of a (dotted) name."""
    if not within:
        yield from code.nodes
        return
    for name, node in code.definitions:
        if ends_with(name.split("."), within.split(".")):
            yield from ast.walk(node)


def dotted(node: ast.AST) -> list[str]:
    """Return the parts of a dotted name, `?` for a base that is no name; [] for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    elif parts:
        parts.append("?")
    return parts[::-1]


def ends_with(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether a dotted name ends in another one, part by part."""
    return bool(wanted) and list(parts[-len(wanted) :]) == list(wanted)


def named(code: Code, node: ast.AST, name: str) -> bool:
    """Tell whether a node is a name that ends in `name`, as written or with its import resolved."""
    parts, wanted = dotted(node), name.split(".")
    if not parts:
        return False
    if ends_with(parts, wanted):
        return True
    meant = code.aliases.get(parts[0])
    return meant is not None and ends_with([*meant.split("."), *parts[1:]], wanted)


def calls_of(code: Code, name: str, within: str = "") -> Iterator[ast.Call]:
    """Yield the calls of a name."""
    for node in nodes(code, within):
        if isinstance(node, ast.Call) and named(code, node.func, name):
            yield node


def assigns(code: Code, name: str, within: str = "") -> bool:
    """Tell whether a name or attribute is given a value."""
    return any(
        isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store) and named(code, node, name)
        for node in nodes(code, within)
    )


def uses(code: Code, name: str, within: str = "") -> bool:
    """Tell whether a name occurs, in whatever way."""
    return any(isinstance(node, ast.Name | ast.Attribute) and named(code, node, name) for node in nodes(code, within))


def imports(code: Code, name: str) -> bool:
    """Tell whether a module, or something in it, is imported."""
    for node in nodes(code, ""):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [part.name for part in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module, *(f"{node.module}.{part.name}" for part in node.names)]
        if any(f"{module}.".startswith(f"{name}.") for module in found):
            return True
    return False


@lru_cache(maxsize=512)
def pattern_of(text: str) -> ast.expr | tuple[ast.stmt, ...]:
    """Return a pattern as an expression or as statements. Raises SyntaxError, also for an empty one."""
    body = statements(parsed(text).body) or parsed(text).body
    if not body:
        raise SyntaxError("an empty pattern")
    if len(body) == 1 and isinstance(body[0], ast.Expr):
        return body[0].value
    return tuple(body)


def contains(code: Code, pattern: str, within: str = "") -> bool:
    """Tell whether a pattern of syntax occurs. Raises SyntaxError for a pattern that does not parse."""
    wanted = pattern_of(pattern)
    for node in nodes(code, within):
        if isinstance(wanted, ast.expr):
            if isinstance(node, ast.expr) and matches(wanted, node):
                return True
        elif any(_follow(wanted, body) for body in _bodies(node)):
            return True
    return False


def matches(wanted: Any, found: Any) -> bool:
    """Tell whether a tree fits a pattern."""
    if isinstance(wanted, ast.Name) and wanted.id == ANYTHING:
        return isinstance(found, ast.expr)
    if isinstance(wanted, ast.Expr) and isinstance(wanted.value, ast.Name) and wanted.value.id == ANYTHING:
        return isinstance(found, ast.stmt)
    if isinstance(wanted, ast.Constant | ast.UnaryOp | ast.BinOp) and not _open(wanted):
        return isinstance(found, ast.expr) and canonical(wanted) == canonical(found)  # `2**14` is 16384
    if isinstance(wanted, ast.Call) and isinstance(found, ast.Call):
        return matches(wanted.func, found.func) and _arguments(wanted, found)
    if isinstance(wanted, ast.AST):
        return type(wanted) is type(found) and all(
            matches(value, getattr(found, name, None))
            for name, value in ast.iter_fields(wanted)
            if name not in _IGNORED
        )
    if isinstance(wanted, list):
        if not isinstance(found, list):
            return False
        wanted, found = statements(wanted), statements(found)
        return len(wanted) == len(found) and all(map(matches, wanted, found))
    return type(wanted) is type(found) and bool(wanted == found)


def _arguments(wanted: ast.Call, found: ast.Call) -> bool:
    """Compare arguments; `...` as the last one by position lets any further ones be there."""
    last = wanted.args[-1] if wanted.args else None
    more = isinstance(last, ast.Constant) and last.value is ...
    first = wanted.args[:-1] if more else wanted.args
    if len(first) > len(found.args) or (not more and len(first) < len(found.args)):
        return False
    given = {word.arg: word.value for word in found.keywords if word.arg}
    asked = {word.arg: word.value for word in wanted.keywords if word.arg}
    rest = [[word.value for word in call.keywords if word.arg is None] for call in (wanted, found)]
    if not more and (given.keys() != asked.keys() or not matches(rest[0], rest[1])):
        return False
    return all(map(matches, first, found.args)) and all(
        name in given and matches(value, given[name]) for name, value in asked.items()
    )


def _open(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node))


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list):
            yield statements(body)


def _follow(wanted: Sequence[ast.stmt], body: list[ast.stmt]) -> bool:
    """Tell whether the statements stand one after another in a body."""
    return any(all(map(matches, wanted, body[start:])) for start in range(len(body) - len(wanted) + 1))
