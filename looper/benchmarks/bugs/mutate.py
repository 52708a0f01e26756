"""One-line mutations of a function, found on its syntax tree and applied to its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from looper.benchmarks.bugs.scope import Function
from looper.parsing import parsed


class Kind(StrEnum):
    """Kinds of mutation."""

    BOUNDARY = "boundary"
    DIRECTION = "direction"
    OFF_BY_ONE = "off_by_one"
    OPERATOR = "operator"
    SWAPPED = "swapped"
    INITIAL = "initial"
    LOGIC = "logic"
    NEGATION = "negation"
    VARIABLE = "variable"
    AGGREGATE = "aggregate"
    MISSING_STEP = "missing_step"
    WRONG_RETURN = "wrong_return"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A replacement of one stretch of one line."""

    kind: Kind
    line: int
    """Line in the function, 0 is the `def`."""
    start: int
    end: int
    text: str
    hint: str
    """What the edit took away, in the issue's terms: a key of the hint table, perhaps `key:subject`."""

    def apply(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        """Return the lines with the edit made."""
        old = lines[self.line]
        return (*lines[: self.line], old[: self.start] + self.text + old[self.end :], *lines[self.line + 1 :])


_SYMBOL: dict[type[ast.AST], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}
_EDGE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_FLIP = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "!=", "!=": "==", "in": "not in", "not in": "in"}
_OPERATORS = {"+": ("-",), "-": ("+",), "*": ("+",), "//": ("*", "%"), "%": ("//",)}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "len"}
_METHODS = {
    "startswith": "endswith",
    "endswith": "startswith",
    "upper": "lower",
    "lower": "upper",
    "find": "rfind",
    "rfind": "find",
    "items": "",
}
_DROPPED = {"strip": "spaces", "lower": "lower_wanted", "upper": "upper_wanted"}


class _Finder(ast.NodeVisitor):
    """Collects the possible edits of a function."""

    def __init__(self, function: Function, lines: tuple[str, ...]) -> None:
        self.function = function
        self.lines = lines
        self.edits: list[Edit] = []
        self.params = [p.name for p in function.params]
        self.operands: set[ast.expr] = set()

    def add(self, kind: Kind, at: ast.expr | ast.stmt, text: str, hint: str, *, start: int = -1, end: int = -1) -> None:
        line = at.lineno - 1
        if line in self.function.frozen or at.end_lineno != at.lineno:
            return
        begin = at.col_offset if start < 0 else start
        stop = (at.end_col_offset or 0) if end < 0 else end
        if self.lines[line][begin:stop] != text:
            self.edits.append(Edit(kind=kind, line=line, start=begin, end=stop, text=text, hint=hint))

    def text(self, node: ast.expr | ast.stmt) -> str:
        return self.lines[node.lineno - 1][node.col_offset : node.end_col_offset]

    def between(self, a: ast.expr, b: ast.expr, symbol: str) -> tuple[int, int]:
        """Return the columns of an operator's symbol between two operands."""
        line, left, right = self.lines[a.lineno - 1], a.end_col_offset or 0, b.col_offset
        at = line.index(symbol, left, right)
        return at, at + len(symbol)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            symbol = _SYMBOL[type(op)]
            start, end = self.between(left, right, symbol)
            subject = f"{self.text(left)}|{self.text(right)}"
            if symbol in _EDGE:
                hint = "include" if "=" in symbol else "exclude"
                self.add(Kind.BOUNDARY, node, _EDGE[symbol], f"{hint}:{subject}", start=start, end=end)
            kind = Kind.DIRECTION if symbol in _EDGE else Kind.NEGATION
            hint = {"<": "below", "<=": "below", ">": "above", ">=": "above"}.get(symbol, "opposite")
            self.add(kind, node, _FLIP[symbol], f"{hint}:{subject}", start=start, end=end)
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        symbol = _SYMBOL.get(type(node.op), "")
        self.operands |= {node.left, node.right}
        if symbol and not isinstance(node.left, ast.BinOp):
            start, end = self.between(node.left, node.right, symbol)
            for other in _OPERATORS[symbol]:
                self.add(Kind.OPERATOR, node, other, f"op{symbol}:{self.text(node.right)}", start=start, end=end)
            if symbol != "*":
                swapped = f"{self.text(node.right)} {symbol} {self.text(node.left)}"
                self.add(Kind.SWAPPED, node, swapped, f"swapped:{self.text(node.left)}|{self.text(node.right)}")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        symbol = _SYMBOL[type(node.op)]
        start, end = self.between(node.target, node.value, symbol + "=")
        for other in _OPERATORS[symbol]:
            self.add(Kind.OPERATOR, node, other + "=", f"op{symbol}:{self.text(node.value)}", start=start, end=end)
        if symbol == "+":
            self.add(Kind.OPERATOR, node, "=", "overwritten", start=start, end=end)
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = node.value
        if isinstance(value, ast.Constant) and type(value.value) is int and 0 <= value.value < 7:
            for other in (value.value + 1, value.value - 1):
                if other >= 0:
                    self.add(Kind.INITIAL, value, str(other), f"initial:{self.text(node.targets[0])}")
            return
        self.visit(value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) is int:
            for other in (node.value + 1, node.value - 1):
                if other >= 0:
                    self.add(Kind.OFF_BY_ONE, node, str(other), f"off_by_one:{node.value}|{other}")

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        symbol = "and" if isinstance(node.op, ast.And) else "or"
        if len(node.values) == 2:
            start, end = self.between(node.values[0], node.values[1], symbol)
            self.add(Kind.LOGIC, node, "or" if symbol == "and" else "and", f"{symbol}_wanted", start=start, end=end)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add(Kind.NEGATION, node, self.text(node.operand), "opposite:")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Call):
            self.add(Kind.NEGATION, node.test, f"not {self.text(node.test)}", "opposite:")
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        for child in node.body:
            self.visit(child)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        place = self.text(node.slice)
        if place in ("0", "-1"):
            other, hint = ("-1", "first") if place == "0" else ("0", "last")
            self.add(Kind.AGGREGATE, node.slice, other, hint)
        if place == "::-1":
            self.add(Kind.MISSING_STEP, node, self.text(node.value), "reversed")
        elif isinstance(node.slice, ast.Slice):
            bound = node.slice.upper
            if node.slice.lower is None and isinstance(bound, ast.Name):  # a dropped constant could not be guessed
                self.add(Kind.MISSING_STEP, node, self.text(node.value), f"head:{bound.id}")
        self.visit(node.value)
        if place not in ("0", "-1"):
            self.visit(node.slice)

    def visit_Call(self, node: ast.Call) -> None:
        func = node.func
        if isinstance(func, ast.Name):
            self._plain_call(node, func)
        elif isinstance(func, ast.Attribute):
            self._method_call(node, func)
        for part in (*node.args, *node.keywords):
            self.visit(part)

    def _plain_call(self, node: ast.Call, func: ast.Name) -> None:
        if func.id in _CALLS and not (func.id == "sum" and isinstance(node.args[0], ast.GeneratorExp)):
            self.add(Kind.AGGREGATE, func, _CALLS[func.id], f"{func.id}_wanted")
        if func.id == "abs":
            inner = self.text(node.args[0])
            self.add(Kind.MISSING_STEP, node, f"({inner})" if node in self.operands else inner, "sign")
        if func.id == "sorted" and not node.keywords:
            keep = "list(" + self.text(node.args[0]) + ")"
            self.add(Kind.MISSING_STEP, node, keep, "unsorted")
        if func.id == "sorted":
            for word in node.keywords:
                if word.arg == "reverse":
                    self.add(Kind.DIRECTION, word.value, "False", "descending")
        if func.id not in ("min", "max", "enumerate", "zip", "divmod") and len(node.args) == 2:
            a, b = self.text(node.args[0]), self.text(node.args[1])
            start, end = node.args[0].col_offset, node.args[1].end_col_offset or 0
            self.add(Kind.SWAPPED, node, f"{b}, {a}", f"arguments:{a}|{b}", start=start, end=end)

    def _method_call(self, node: ast.Call, func: ast.Attribute) -> None:
        end = func.end_col_offset or 0
        other = _METHODS.get(func.attr, "")
        if other:
            self.add(Kind.AGGREGATE, node, other, f"{func.attr}_wanted", start=end - len(func.attr), end=end)
        if func.attr in _DROPPED:
            self.add(Kind.MISSING_STEP, node, self.text(func.value), _DROPPED[func.attr])
        if func.attr == "replace" and len(node.args) == 2:
            a, b = self.text(node.args[0]), self.text(node.args[1])
            start, stop = node.args[0].col_offset, node.args[1].end_col_offset or 0
            self.add(Kind.SWAPPED, node, f"{b}, {a}", f"arguments:{a}|{b}", start=start, end=stop)
        if func.attr not in ("append", "items"):  # a list that grows while it is walked would never end
            self.visit(func.value)

    def visit_Name(self, node: ast.Name) -> None:
        kind = self.function.types.get(node.id)
        if not isinstance(node.ctx, ast.Load) or kind is None:
            return
        for other, its in self.function.types.items():
            if its == kind and other != node.id and self._known(other, node.lineno - 1):
                self.add(Kind.VARIABLE, node, other, f"variable:{node.id}|{other}")

    def _known(self, name: str, line: int) -> bool:
        """Return whether a name is bound at a line: a parameter, or assigned above, or bound by its loop."""
        if name in self.params:
            return True
        bound = re.compile(rf"\b{name}\b( =|,| in\b)")
        return any(bound.search(text) and (" = " in text or " for " in text) for text in self.lines[1:line])

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if isinstance(value, ast.Constant) and type(value.value) is bool:
            self.add(Kind.WRONG_RETURN, value, str(not value.value), "returned")
        elif isinstance(value, ast.Name):
            self._other_return(value)
        elif isinstance(value, ast.BinOp) and isinstance(value.right, ast.Constant):
            self.add(Kind.MISSING_STEP, value, self.text(value.left), f"unfinished:{self.text(value.right)}")
        elif isinstance(value, ast.Constant) and isinstance(value.value, str):
            for label in sorted(set(re.findall(r"return (\"\w+\"|'\w+')$", "\n".join(self.lines), re.M))):
                self.add(Kind.WRONG_RETURN, value, label, "returned")
        if value is not None and not isinstance(value, ast.Name):
            self.visit(value)

    def _other_return(self, value: ast.Name) -> None:
        kind = self.function.types.get(value.id)
        for other, its in self.function.types.items():
            if its == kind and other != value.id and self._known(other, value.lineno - 1):
                self.add(Kind.WRONG_RETURN, value, other, f"returned_other:{value.id}|{other}")


def edits(function: Function, lines: tuple[str, ...] | None = None) -> tuple[Edit, ...]:
    """Return every known one-line mutation of a function (of `lines`, a mutated form of it, if given)."""
    lines = function.lines if lines is None else lines
    finder = _Finder(function, lines)
    for statement in _statements("\n".join(lines)):
        finder.visit(statement)
    return tuple(finder.edits)


def _statements(source: str) -> Iterator[ast.stmt]:
    """Yield a function's statements without its docstring and defaults."""
    top = parsed(source).body[0]
    assert isinstance(top, ast.FunctionDef)
    for statement in top.body:
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            yield statement
