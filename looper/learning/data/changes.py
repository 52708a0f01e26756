"""A patch's hunks as edits that an agent can make: lines that stand once in the file, and what is around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from looper.learning.patches import Hunk

_DEFINED = re.compile(r"^(\s*)(?:async\s+def|def|class)\s+(\w+)")


class Unplayable(Exception):
    """A patch cannot be played as a session; the text is the reason, for counting."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Lines `at` to `end` of a file (0-based, end exclusive) become `new`."""

    at: int
    end: int
    new: tuple[str, ...]


def change_of(lines: Sequence[str], hunk: Hunk, shift: int) -> Change:
    """Return a hunk as the smallest change that can be said in the tool language.

    `shift` is the number of lines that earlier hunks added. Raises Unplayable if the hunk is not about these lines.
    """
    start = _place(hunk) + shift
    if tuple(lines[start : start + len(hunk.old)]) != hunk.old:
        raise Unplayable("a patch that does not fit the tree")
    lead, old, new = _narrowed(hunk)
    at = start + lead
    return _widened(lines, Change(at=at, end=at + len(old), new=new))


def applied(lines: Sequence[str], change: Change) -> list[str]:
    """Return the file's lines after a change."""
    return [*lines[: change.at], *change.new, *lines[change.end :]]


def patched(lines: Sequence[str], hunks: Sequence[Hunk]) -> list[str]:
    """Return a file's lines after all hunks. Raises Unplayable if one is not about these lines."""
    out = list(lines)
    shift = 0
    for hunk in hunks:
        at = _place(hunk) + shift
        if tuple(out[at : at + len(hunk.old)]) != hunk.old:
            raise Unplayable("a patch that does not fit the tree")
        out[at : at + len(hunk.old)] = hunk.new
        shift += len(hunk.new) - len(hunk.old)
    return out


def definition(lines: Sequence[str], at: int) -> tuple[int, str] | None:
    """Return the line (0-based) and name of the function or class that a line is in; None outside of any."""
    near = next((lines[i] for i in (*range(at, len(lines)), *range(at - 1, -1, -1)) if lines[i].strip()), "")
    indent = len(near) - len(near.lstrip())
    for i in range(min(at, len(lines) - 1), -1, -1):
        found = _DEFINED.match(lines[i])
        if found and (len(found[1]) < indent or i == at):
            return i, found[2]
    return None


def _place(hunk: Hunk) -> int:
    """Return where a hunk begins, 0-based; one without old lines stands after the line that it names."""
    return hunk.start - 1 if hunk.old else hunk.start


def _narrowed(hunk: Hunk) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Return a hunk without the context around its changes: lines before them, old lines, new lines."""
    changed = [i for i, (sign, _) in enumerate(hunk.lines) if sign != " "]
    if not changed:
        raise Unplayable("a patch with a damaged hunk")
    inner = hunk.lines[changed[0] : changed[-1] + 1]
    old, new = (tuple(text for sign, text in inner if sign != other) for other in "+-")
    return changed[0], old, new


def _widened(lines: Sequence[str], change: Change) -> Change:
    """Take in lines around a change until the old text stands once in the file and can be said."""
    at, end, new = change.at, change.end, list(change.new)
    last = len(lines) - (1 if lines and lines[-1] == "" else 0)
    upwards = True
    while not _sayable(lines, at, end, new):
        if at == 0 and end >= last:
            raise Unplayable("a change that the tool language cannot say")
        if at > 0 and (upwards or end >= last):
            at, new = at - 1, [lines[at - 1], *new]
        else:
            new, end = [*new, lines[end]], end + 1
        upwards = not upwards
    return Change(at=at, end=end, new=tuple(new))


def _sayable(lines: Sequence[str], at: int, end: int, new: Sequence[str]) -> bool:
    """Whether the old text is unique and not blank, and the new text is not one empty line (it would read as none)."""
    old = list(lines[at:end])
    if not "\n".join(old).strip() or list(new) == [""]:
        return False
    return sum(list(lines[i : i + len(old)]) == old for i in range(len(lines) - len(old) + 1)) == 1
