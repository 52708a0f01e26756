"""Applying an edit to a text: exact lines first, then (as a switch) the nearest lines."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from looper.agents.indentation import Refused, reindented

RATIO = 0.7
"""Similarity from which a nearby stretch of lines is taken for the one that was meant (difflib ratio)."""

_FENCE = re.compile(r"^\s*(```+|~~~+)[\w+.#-]*\s*$")


@dataclass(frozen=True, kw_only=True)
class Edited:
    """An edit that applied: the new text and the first changed line (1-based)."""

    text: str
    line: int
    exact: bool


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
    times = text.count(old) if "\n" not in old else 0
    if times == 1:
        start = text.index(old)
        line = text.count("\n", 0, start) + 1
        return Edited(text=text[:start] + new + text[start + len(old) :], line=line, exact=True)
    if times > 1 and not (fuzzy and len(_alike(lines, wanted)) == 1):
        return Refused(reason=f"the old text stands {times} times: copy the whole line")
    if fuzzy:
        found = _nearest(lines, wanted)
        if found is not None:
            fresh = reindented(new, wanted, lines[found : found + len(wanted)], lines)
            return fresh if isinstance(fresh, Refused) else _replaced(lines, found, len(wanted), fresh, exact=False)
    return Refused(reason="the old text is not in the file: read the lines again and copy them exactly")


def _occurrences(lines: list[str], wanted: list[str]) -> list[int]:
    n = len(wanted)
    return [i for i in range(len(lines) - n + 1) if lines[i : i + n] == wanted]


def _alike(lines: list[str], wanted: list[str]) -> list[int]:
    """Return where lines stand that differ in indentation only."""
    return _occurrences([line.strip() for line in lines], [line.strip() for line in wanted])


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
    same = _alike(lines, wanted)
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
