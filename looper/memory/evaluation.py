"""The value of a checked predicate in code: three-valued, worked out on syntax trees."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from looper.memory.folding import Unfolded, Unknown, Value, binary, fold
from looper.memory.occurrences import assigns, calls_of, contains, imports, uses
from looper.memory.syntax import Code

ARITY: dict[str, tuple[int, int, bool]] = {
    "knob": (1, 1, False),
    "field": (1, 1, False),
    "known": (1, 1, False),
    "len": (1, 1, False),
    "defines": (1, 1, False),
    "imports": (1, 1, False),
    "calls": (1, 1, True),
    "uses": (1, 1, True),
    "assigns": (1, 1, True),
    "passes": (2, 3, True),
    "contains": (1, 1, True),
}
"""Words of the language: fewest and most arguments, and whether `within` is allowed."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluates predicates that were checked, over one code that parses."""

    code: Code

    def truth(self, node: ast.expr) -> bool | None:
        """Return whether an expression holds; None is unknown."""
        if isinstance(node, ast.BoolOp):
            found = [self.truth(value) for value in node.values]
            decides = isinstance(node.op, ast.Or)  # one True decides an `or`, one False an `and`
            if decides in found:
                return decides
            return None if None in found else not decides
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand)
            return None if inner is None else not inner
        try:
            return bool(self.value(node))
        except Unknown:
            return None

    def value(self, node: ast.expr) -> Value:
        """Return an expression's value. Raises Unknown."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Tuple():
                return tuple(self.value(item) for item in node.elts)
            case ast.List():
                return [self.value(item) for item in node.elts]
            case ast.UnaryOp(op=ast.USub()):
                return fold(ast.UnaryOp(op=node.op, operand=ast.Constant(self.value(node.operand))))
            case ast.BinOp():
                return binary(node.op, self.value(node.left), self.value(node.right))
            case ast.Subscript():
                try:
                    return self.value(node.value)[self.value(node.slice)]
                except (LookupError, TypeError):
                    raise Unknown from None
            case ast.Compare():
                return self._compare(node)
            case ast.Call(func=ast.Name(id=word)):
                within = next((str(self.value(keyword.value)) for keyword in node.keywords), "")
                return self._call(word, node.args, within)
        known = self.truth(node)
        if known is None:
            raise Unknown
        return known

    def _compare(self, node: ast.Compare) -> bool:
        values = [self.value(item) for item in [node.left, *node.comparators]]
        for n, op in enumerate(node.ops):
            try:
                if not _COMPARISONS[type(op)](values[n], values[n + 1]):
                    return False
            except TypeError:  # a text against a number
                raise Unknown from None
        return True

    def _call(self, word: str, args: list[ast.expr], within: str) -> Value:
        if word == "known":
            try:
                self.value(args[0])
            except Unknown:
                return False
            return True
        first = self.value(args[0])
        if word == "len":
            try:
                return len(first)
            except TypeError:
                raise Unknown from None
        if word in ("knob", "field"):
            found = (self.code.knobs if word == "knob" else self.code.fields).get(first, Unfolded("absent"))
            if isinstance(found, Unfolded):
                raise Unknown
            return found
        if word == "passes":
            return self._passes([self.value(arg) for arg in args], within)
        return self._occurs(word, str(first), within)

    def _occurs(self, word: str, name: str, within: str) -> bool:
        if word == "defines":
            parts = name.split(".")
            return any(found.split(".")[-len(parts) :] == parts for found, _ in self.code.definitions)
        if word == "imports":
            return imports(self.code, name)
        if word == "calls":
            return any(True for _ in calls_of(self.code, name, within))
        looks = {"uses": uses, "assigns": assigns, "contains": contains}
        return looks[word](self.code, name, within)

    def _passes(self, args: list[Value], within: str) -> bool:
        """Tell whether some call has the keyword; an argument that is a constant of the module is looked up."""
        for call in calls_of(self.code, str(args[0]), within):
            for keyword in call.keywords:
                if keyword.arg != args[1]:
                    continue
                if len(args) == 2:
                    return True
                try:
                    given = fold(keyword.value, self.code.constants)
                except Unknown:
                    continue
                if type(given) is type(args[2]) and given == args[2]:
                    return True
        return False
