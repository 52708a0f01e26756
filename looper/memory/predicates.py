"""The language of `Method.applies_if` and `present_if`: predicates over the syntax tree of code, never executed.

A predicate is a Python expression of these parts, and of nothing else:

    and  or  not  ( )                     == != < <= > >= in not in, also in chains
    + - * / // % **  unary -  X[0]        numbers, "strings", True, False, (tuples), [lists]
    knob("NAME")                          value of a module-level ALL_CAPS constant; literal arithmetic and
                                          earlier constants are worked out (`2**14`, `DEPTH * 64`)
    field("GPTConfig.n_kv_head")          default of a class attribute
    known(X)   len(X)                     is the value known?   its length
    defines("MLP.forward")                a class or function of that name, at any depth
    calls("F.silu")                       a call of it
    uses("F.silu")                        the name occurs: read, called or assigned
    assigns("x0_lambdas")                 a name or attribute is given a value
    passes("attend", "causal", True)      a call of it has the keyword argument [with that value]
    imports("kernels")                    an import of that module, or of something in it
    contains("F.relu(_).square()")        the pattern's syntax tree occurs: an expression, or statements that follow
                                          one another; `_` is any one expression or statement, `...` as the
                                          last argument by position any further arguments

calls, uses, assigns, passes and contains take `within="MLP"`: only in the classes and functions of that name.
Dotted names match by their last parts ("silu" matches `F.silu`), also with imports resolved
("torch.nn.functional.silu" matches `F.silu`).

What is not known (no such knob, a value from the environment) makes every comparison unknown, and
`not unknown` too; `and` and `or` are SQL's. A predicate that is unknown does not hold. In code that
does not parse nothing holds.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from looper.errors import ConfigError
from looper.memory.evaluation import ARITY, Evaluation
from looper.memory.occurrences import pattern_of
from looper.memory.rows import Method
from looper.memory.syntax import Code, code_of
from looper.parsing import parsed_expression

_PARTS = (
    ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Compare, ast.Subscript,
    ast.Constant, ast.Tuple, ast.List, ast.Call, ast.Name, ast.Load, ast.keyword,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
)  # fmt: skip


def holds(predicate: str, code: Code | str, *, method: str = "") -> bool:
    """Tell whether a predicate is true of code. Raises ConfigError for one that is not of the language."""
    check(predicate, method=method)
    return _held(predicate, code_of(code).text)


@lru_cache(maxsize=4096)
def _held(predicate: str, text: str) -> bool:
    """Evaluate a checked predicate; a campaign asks a pack's of the same program in trial after trial."""
    code = code_of(text)
    return code.tree is not None and Evaluation(code=code).truth(_checked(predicate).body) is True


def applies(method: Method, code: Code | str) -> bool:
    """Tell whether a method can be tried on code."""
    return not method.applies_if or holds(method.applies_if, code, method=method.id)


def present(method: Method, code: Code | str) -> bool | None:
    """Tell whether code has a method; None where the method does not say how to tell."""
    return holds(method.present_if, code, method=method.id) if method.present_if else None


def check(predicate: str, *, method: str = "") -> ast.Expression:
    """Return a predicate's tree. Raises ConfigError that names the method, what is wrong and what is allowed."""
    try:
        return _checked(predicate)
    except _Wrong as wrong:
        raise ConfigError(f"the predicate {predicate!r} of {_whose(method)} {wrong}") from None


class _Wrong(Exception):
    """What is wrong with a predicate."""


@lru_cache(maxsize=1024)
def _checked(predicate: str) -> ast.Expression:
    try:
        tree = parsed_expression(predicate.strip())
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _Wrong(f"does not parse as an expression: {error}; see looper/memory/predicates.py") from None
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, _PARTS):
            raise _Wrong(
                f"holds a {type(node).__name__}, which the language has not; it has comparisons, arithmetic, "
                f"and, or, not, and the words {', '.join(ARITY)}"
            )
        if isinstance(node, ast.Call):
            _check_call(node)
        elif isinstance(node, ast.Name) and id(node) not in functions:
            raise _Wrong(f"holds the bare name {node.id!r}; for the value of a constant write knob({node.id!r})")
    return tree


def _check_call(node: ast.Call) -> None:
    if not isinstance(node.func, ast.Name) or node.func.id not in ARITY:
        raise _Wrong(f"calls the unknown word {ast.unparse(node.func)!r}; choose one of {', '.join(ARITY)}")
    word = node.func.id
    least, most, within = ARITY[word]
    if not least <= len(node.args) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise _Wrong(f"gives {word} {len(node.args)} arguments; it takes {count}")
    for keyword in node.keywords:
        if keyword.arg != "within" or not within:
            allowed = "within" if within else "none"
            raise _Wrong(f"gives {word} the keyword {keyword.arg!r}; it takes {allowed}")
    if word in ("known", "len"):
        return
    texts = [*node.args[:2], *(keyword.value for keyword in node.keywords)]
    for text in texts:
        if not isinstance(text, ast.Constant) or not isinstance(text.value, str) or not text.value:
            raise _Wrong(f"gives {word} {ast.unparse(text)}; it takes a text in quotes")
    if word == "contains":
        _check_pattern(str(node.args[0].value))  # type: ignore[attr-defined]  # a Constant, as was just seen


def _check_pattern(text: str) -> None:
    try:
        pattern_of(text)
    except SyntaxError as error:
        raise _Wrong(f"has the pattern {text!r}, which does not parse: {error.msg}") from None


def _whose(method: str) -> str:
    return f"method {method!r}" if method else "a method"
