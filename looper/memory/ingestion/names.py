"""Names of code in a text, for the search by parts of identifiers."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection, Iterator

MOST = 200
"""Most names that a passage lists."""
SHORTEST = 3
"""Fewest letters of a name: the search works with three letters at a time."""
_TOKEN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_TICKED = re.compile(r"`([^`\n]{1,80})`")
_COMMON = frozenset({*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"})


def looks_like_code(token: str) -> bool:
    """Whether a word of prose is a name: `snake_case`, `camelCase`, `module.name`, `ALL_CAPS`, `conv2d`."""
    if "_" in token.strip("_") or re.search(r"[a-z][A-Z]|[A-Za-z]\d+[A-Za-z]", token):
        return True
    return "." in token and len(token.split(".")[-1]) > 1


def names_in(text: str, known: Collection[str] | None = None) -> tuple[str, ...]:
    """Return the names of a text in the order they appear, each once.

    `known` are the names of the code that the text is a part of. Without them the text is taken for prose: names are
    the words that look like code and those between backticks.
    """
    found = dict.fromkeys(_of_prose(text) if known is None else _of_code(text, known))
    return tuple(list(found)[:MOST])


def _of_prose(text: str) -> Iterator[str]:
    ticked = {token for match in _TICKED.finditer(text) for token in _TOKEN.findall(match.group(1))}
    for token in _TOKEN.findall(text):
        if len(token) >= SHORTEST and token not in _COMMON and (token in ticked or looks_like_code(token)):
            yield token


def _of_code(text: str, known: Collection[str]) -> Iterator[str]:
    for token in _TOKEN.findall(text):
        for part in token.split("."):
            if len(part) >= SHORTEST and part in known and part not in _COMMON:
                yield part
