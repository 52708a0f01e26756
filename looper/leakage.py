"""Leakage: how much of the gold patch the issue's text already tells; for the report, and for what is left out."""

from __future__ import annotations

import re

from looper.records import Record

LONGEST_TRIVIAL = 11
"""Added lines up to this many characters (`return None`, `else:`) are in many texts by chance."""


class Leakage(Record):
    """What an issue gives away of its reference patch."""

    verbatim: float | None
    """Share of the patch's added non-trivial lines that stand in the issue word for word; None if there are none."""
    overlap: float | None
    """Share of the distinct words of the added lines that the issue uses too; None if there are none."""
    diff: bool
    """Whether the issue holds a diff."""

    @property
    def score(self) -> float | None:
        """One number for a table: 1 for an issue with a diff, else the verbatim share."""
        return 1.0 if self.diff else self.verbatim


def measure(issue: str, gold: str) -> Leakage:
    """Compare an issue with the reference patch (unified diff)."""
    lines = added_lines(gold)
    telling = [line for line in lines if len(line) > LONGEST_TRIVIAL]
    words = {word for line in lines for word in _words(line)}
    known = set(_words(issue))
    return Leakage(
        verbatim=sum(line in issue for line in telling) / len(telling) if telling else None,
        overlap=len(words & known) / len(words) if words else None,
        diff=re.search(r"^\s*diff --git ", issue, re.MULTILINE) is not None,
    )


def added_lines(patch: str) -> list[str]:
    """Return the lines that a unified diff adds, stripped, without empty ones."""
    found: list[str] = []
    previous = ""
    for line in patch.splitlines():
        header = line.startswith("+++ ") and previous.startswith("--- ")
        if line.startswith("+") and not header and line[1:].strip():
            found.append(line[1:].strip())
        previous = line
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z_][A-Za-z0-9_]{2,}|\d{2,}", text)
