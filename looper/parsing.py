"""Python's parser, for one caller at a time.

CPython 3.11 counts how deep it is in a syntax tree in one place for all threads. Another thread that parses while the
first is in the middle makes the count wrong, and the parser raises SystemError on code that is right.
"""

from __future__ import annotations

import ast
from threading import Lock

_ONE = Lock()


def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a program. Raises what `ast.parse` raises."""
    with _ONE:
        return ast.parse(text)


def parsed_expression(text: str) -> ast.Expression:
    """Return the syntax tree of one expression. Raises what `ast.parse` raises."""
    with _ONE:
        return ast.parse(text, mode="eval")
