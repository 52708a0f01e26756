"""The hidden file of a task: what is called, what is expected, and the two scripts that keep both apart."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from looper.benchmarks.bugs.answer import plain
from looper.benchmarks.bugs.execute import Case

HIDDEN = "hidden_checks.py"
"""Name of the hidden test file, written into the judge's box only."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A hidden test: a call and its value."""

    id: str
    module: str
    function: str
    case: Case


@lru_cache(maxsize=2)
def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


_HIDDEN = """TOKEN = "{token}"
{sign}

HERE = os.path.dirname(os.path.abspath(__file__))
ANSWER = {answer!r}
CALLS = {calls!r}
EXPECTED = [
{expected}
]
FOLDERS = [os.path.join(HERE, folder) for folder in {roots!r}] + [HERE]
judge(__file__, TOKEN, f"{{ANSWER}}\\nanswer({{FOLDERS!r}}, {{CALLS}})\\n", EXPECTED)
"""


def hidden_file(token: str, checks: list[Check], roots: list[str]) -> str:
    """Return the hidden test script.

    What it prints is signed with the token; a process that knows neither the token nor what is expected runs the
    repository's code.
    """
    return _HIDDEN.format(
        token=token,
        sign=_script("sign.py"),
        answer=_script("answer.py"),
        calls="[" + ", ".join(f"({c.module!r}, {c.function!r}, ({c.case.args},))" for c in checks) + "]",
        expected="\n".join(f"    ({c.id!r}, {plain(ast.literal_eval(c.case.expected))!r})," for c in checks),
        roots=roots,
    )
