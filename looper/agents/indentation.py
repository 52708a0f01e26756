"""The indentation of an edit whose old text has it wrong: new lines get the file's own, in the file's own unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An edit that did not apply, and what the agent should do."""

    reason: str


def reindented(new: str, wanted: Sequence[str], real: Sequence[str], lines: Sequence[str]) -> str | Refused:
    """Return new lines as deep below the first of `real` as they are below the first old line `wanted`.

    Where one of both sides is indented with tabs, levels are counted, and the file's unit is written. What is
    aligned with blanks and tabs at once, or by an odd number of blanks, is refused.
    """
    if not new:
        return new
    fresh = new.split("\n")
    mine = _indents([*wanted, *fresh])
    theirs = _indents(real) or _indents(lines)
    if "\t" not in "".join([*mine, *theirs]):
        return _shifted(fresh, len(_indent(real[0])) - len(_indent(wanted[0])))
    unit, own = _unit(theirs or mine), _unit(mine or theirs)
    first, here = _levels(_indent(real[0]), unit), _levels(_indent(wanted[0]), own)
    depths = [_levels(_indent(line), own) for line in fresh]
    if first is None or here is None or None in depths:
        kind = "tabs" if any("\t" in indent for indent in theirs) else "blanks"
        return Refused(
            reason=f"the file is indented with {kind}: copy the old lines exactly and indent the new as they are"
        )
    rows = zip(fresh, depths, strict=True)
    return "\n".join(
        unit * max(0, depth - here + first) + line.lstrip() if line.strip() else line
        for line, depth in rows
        if depth is not None
    )


def _shifted(lines: Sequence[str], shift: int) -> str:
    """Return lines moved by so many blanks."""
    if not shift:
        return "\n".join(lines)
    return "\n".join(
        " " * max(0, len(_indent(line)) + shift) + line.lstrip() if line.strip() else line for line in lines
    )


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] if line.strip() else ""


def _indents(lines: Sequence[str]) -> list[str]:
    """Return the indentation of all lines that have some."""
    return [indent for line in lines if (indent := _indent(line))]


def _unit(indents: Sequence[str]) -> str:
    """Return what one level is written as; '' where blanks and tabs are mixed, or no unit fits."""
    if all(set(indent) == {"\t"} for indent in indents):
        return "\t"
    width = math.gcd(*(len(indent) for indent in indents))
    return " " * width if width > 1 and not any("\t" in indent for indent in indents) else ""


def _levels(indent: str, unit: str) -> int | None:
    """Return how many levels deep an indentation is; None if it is not made of the unit."""
    if not indent:
        return 0
    return len(indent) // len(unit) if unit else None
