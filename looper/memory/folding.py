"""Values of constant expressions in Python code, worked out from the syntax tree and never by running it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Value = Any
"""What folds: numbers, strings, True, False, None, and tuples, lists and dicts of these."""

MOST_BITS = 4096
"""Longest integer that folding may make; a larger one stays unknown."""
MOST_ITEMS = 10_000
"""Longest text, tuple or list that folding may make."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_CALLS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "max": max,
    "min": min,
    "round": round,
}


class Unknown(Exception):
    """The expression is no constant that can be worked out here."""


@dataclass(frozen=True)
class Unfolded:
    """Stands for a constant whose value depends on more than the text, e.g. the environment."""

    source: str
    """The expression, as `ast.unparse` writes it."""


def fold(node: ast.expr, names: Mapping[str, Value | Unfolded] | None = None) -> Value:
    """Return an expression's value, given what names stand for. Raises Unknown."""
    names = names or {}
    match node:
        case ast.Constant():
            return node.value
        case ast.Name() if node.id in names:
            value = names[node.id]
            if isinstance(value, Unfolded):
                raise Unknown
            return value
        case ast.Tuple():
            return tuple(fold(item, names) for item in node.elts)
        case ast.List():
            return [fold(item, names) for item in node.elts]
        case ast.Dict():
            return {key: fold(value, names) for key, value in zip(_keys(node, names), node.values, strict=True)}
        case ast.UnaryOp():
            return _guarded(_UNARY[type(node.op)], fold(node.operand, names))
        case ast.BinOp() if type(node.op) in _BINARY:
            return binary(node.op, fold(node.left, names), fold(node.right, names))
        case ast.Subscript() if not isinstance(node.slice, ast.Slice):
            return _guarded(operator.getitem, fold(node.value, names), fold(node.slice, names))
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS and name not in names and not node.keywords:
            return _guarded(_CALLS[name], *[fold(item, names) for item in node.args])
    raise Unknown


def binary(op: ast.operator, left: Value, right: Value) -> Value:
    """Return `left op right`. Raises Unknown where it is not defined, or too large to be meant."""
    if type(op) not in _BINARY or _too_large(op, left, right):
        raise Unknown
    return _guarded(_BINARY[type(op)], left, right)


def literal_number(node: ast.AST) -> int | float | None:
    """Return the number that an expression of number literals stands for, e.g. `2**14`; None for anything else."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant):
            if type(part.value) not in (int, float):
                return None
        elif not isinstance(part, ast.UnaryOp | ast.BinOp | ast.operator | ast.unaryop) or isinstance(part, ast.Not):
            return None
    try:
        value = fold(node)  # type: ignore[arg-type]  # only expressions are left
    except Unknown:
        return None
    return value if type(value) in (int, float) else None


def assignments(body: list[ast.stmt]) -> Iterator[tuple[ast.expr, ast.expr | None, ast.operator | None]]:
    """Yield (target, value, operator of an augmented assignment) in order; value None where the run decides.

    The bodies of `with` and of `if __name__ == "__main__"` are run straight on; what any other
    block assigns depends on the run.
    """
    for statement in body:
        match statement:
            case ast.Assign():
                for target in statement.targets:
                    yield target, statement.value, None
            case ast.AnnAssign() if statement.value is not None:
                yield statement.target, statement.value, None
            case ast.AugAssign():
                yield statement.target, statement.value, statement.op
            case ast.With():
                yield from assignments(statement.body)
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()])):
                yield from assignments(statement.body)
            case ast.If() | ast.For() | ast.While() | ast.Try():
                for part in ast.walk(statement):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        yield part, None, None


def constants(body: list[ast.stmt], known: Mapping[str, Value | Unfolded] | None = None) -> dict[str, Value | Unfolded]:
    """Return the values that the names of a body have at its end; `known` are names from outside."""
    names: dict[str, Value | Unfolded] = dict(known or {})
    own: dict[str, Value | Unfolded] = {}
    for target, expression, op in assignments(body):
        for name, part in _pairs(target, expression):
            names[name] = own[name] = _assigned(name, part, op, names)
    return own


def _assigned(
    name: str, part: ast.expr | None, op: ast.operator | None, names: Mapping[str, Value | Unfolded]
) -> Value | Unfolded:
    if part is None:
        return Unfolded("set by a branch")
    try:
        value = fold(part, names)
        value = value if op is None else binary(op, fold(ast.Name(id=name), names), value)
    except Unknown:
        return Unfolded(_source(part))
    return value if _fits(value) else Unfolded(_source(part))


def _fits(value: Value) -> bool:
    """Tell whether a value written out has at most MOST_ITEMS parts: lists of one list double with every line."""
    left = [value]
    for _ in range(MOST_ITEMS + 1):
        if not left:
            return True
        item = left.pop()
        if isinstance(item, tuple | list):
            left.extend(item)
        elif isinstance(item, dict):
            left.extend(item.values())
    return False


def _source(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except ValueError:  # some nested f-strings cannot be written again before Python 3.12
        return ast.dump(node)


def _pairs(target: ast.expr, value: ast.expr | None) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield what each name of a target is given, through unpacked tuples."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        fits = len(parts) == len(target.elts) and not any(isinstance(p, ast.Starred) for p in [*parts, *target.elts])
        for n, item in enumerate(target.elts):
            yield from _pairs(item, parts[n] if fits else None)


def _keys(node: ast.Dict, names: Mapping[str, Value | Unfolded]) -> list[Value]:
    keys = []
    for key in node.keys:
        if key is None:  # `**other`
            raise Unknown
        keys.append(fold(key, names))
    try:
        hash(tuple(keys))
    except TypeError:
        raise Unknown from None
    return keys


def _too_large(op: ast.operator, left: Value, right: Value) -> bool:
    whole = isinstance(left, int) and isinstance(right, int)
    if isinstance(op, ast.Pow) and whole:
        return bool(abs(right) * max(1, left.bit_length()) > MOST_BITS)
    if isinstance(op, ast.LShift) and whole:
        return bool(right > MOST_BITS or left.bit_length() > MOST_BITS)
    if isinstance(op, ast.Mult):
        for some, times in ((left, right), (right, left)):
            if isinstance(some, str | bytes | tuple | list) and isinstance(times, int):
                return bool(len(some) * max(0, times) > MOST_ITEMS)
        return bool(whole and left.bit_length() + right.bit_length() > 2 * MOST_BITS)
    if isinstance(op, ast.Add) and all(isinstance(side, str | bytes | tuple | list) for side in (left, right)):
        return len(left) + len(right) > MOST_ITEMS
    return isinstance(op, ast.Mod) and isinstance(left, str | bytes)  # formatting text is not arithmetic


def _guarded(function: Callable[..., Any], *values: Value) -> Value:
    try:
        value = function(*values)
    except (ArithmeticError, TypeError, ValueError, LookupError):
        raise Unknown from None
    if isinstance(value, complex):
        raise Unknown
    return value
