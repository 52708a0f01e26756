"""Applying an edit to a text: exact lines first, then (as a switch) the nearest lines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

RATIO = 0.7
"""Similarity from which a nearby stretch of lines is taken for the one that was meant (difflib ratio)."""

_FENCE = re.compile(r"^\s*(```+|~~~+)[\w+.#-]*\s*$")


@dataclass(frozen=True, kw_only=True)
class Edited:
    """An edit that applied: the new text and the first changed line (1-based)."""

    text: str
    line: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An edit that did not apply, and what the agent should do."""

    reason: str


def strip_fences(text: str) -> str:
    """Remove a code fence around a text: first and last line only, and only if both are fences."""
    lines = text.strip("\n").split("\n")
    if len(lines) >= 2 and _FENCE.match(lines[0]) and lines[-1].strip() in ("```", "~~~"):
        return "\n".join(lines[1:-1]) + ("\n" if text.endswith("\n") else "")
    return text


def apply_edit(text: str, old: str, new: str, *, fuzzy: bool) -> Edited | Refused:
    """Replace `old` by `new` in `text`.

    Whole lines that match exactly once win; then one exact stretch inside lines; then, with `fuzzy`,
    lines that differ in indentation only, then the most similar stretch of as many lines.
    """
    lines, wanted = text.split("\n"), old.split("\n")
    at = _occurrences(lines, wanted)
    if len(at) > 1:
        return Refused(reason=f"the old text stands at lines {_listed(at)}: add a line before it to tell them apart")
    if at:
        return _replaced(lines, at[0], len(wanted), new, exact=True)
    if text.count(old) == 1 and "\n" not in old:
        start = text.index(old)
        line = text.count("\n", 0, start) + 1
        return Edited(text=text[:start] + new + text[start + len(old) :], line=line, exact=True)
    if fuzzy:
        found = _nearest(lines, wanted)
        if found is not None:
            return _replaced(lines, found, len(wanted), _reindented(new, wanted, lines[found]), exact=False)
    return Refused(reason="the old text is not in the file: read the lines again and copy them exactly")


def _occurrences(lines: list[str], wanted: list[str]) -> list[int]:
    n = len(wanted)
    return [i for i in range(len(lines) - n + 1) if lines[i : i + n] == wanted]


def _listed(at: list[int]) -> str:
    shown = ", ".join(str(i + 1) for i in at[:4])
    return shown if len(at) <= 4 else f"{shown}, ..."


def _replaced(lines: list[str], at: int, count: int, new: str, *, exact: bool) -> Edited:
    fresh = new.split("\n") if new else []
    return Edited(text="\n".join(lines[:at] + fresh + lines[at + count :]), line=at + 1, exact=exact)


def _nearest(lines: list[str], wanted: list[str]) -> int | None:
    """Return where the most similar stretch starts; None if none is similar, or two are equally so."""
    n = len(wanted)
    bare = [line.strip() for line in wanted]
    same = [i for i in range(len(lines) - n + 1) if [x.strip() for x in lines[i : i + n]] == bare]
    if len(same) == 1:
        return same[0]
    if same or len(lines) > 5000:
        return None
    target = "\n".join(bare)
    best: list[tuple[float, int]] = []
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(target)
    for i in range(len(lines) - n + 1):
        matcher.set_seq1("\n".join(x.strip() for x in lines[i : i + n]))
        if matcher.real_quick_ratio() >= RATIO and matcher.quick_ratio() >= RATIO:
            best.append((matcher.ratio(), i))
    best.sort(key=lambda pair: (-pair[0], pair[1]))
    if not best or best[0][0] < RATIO or (len(best) > 1 and best[0][0] == best[1][0]):
        return None
    return best[0][1]


def _reindented(new: str, wanted: list[str], first: str) -> str:
    """Shift new lines by the indentation that the old text got wrong."""
    have = len(wanted[0]) - len(wanted[0].lstrip())
    real = len(first) - len(first.lstrip())
    if have == real or not new:
        return new
    shift = real - have
    out = []
    for line in new.split("\n"):
        indent = len(line) - len(line.lstrip())
        out.append(" " * max(0, indent + shift) + line.lstrip() if line.strip() else line)
    return "\n".join(out)
