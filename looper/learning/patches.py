"""A unified diff as files and hunks, for reading where a change is and for replaying it as edits."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)$")
_NO_NEWLINE = "\\"


@dataclass(frozen=True, kw_only=True)
class Hunk:
    """One stretch of a diff."""

    start: int
    """First line in the old file (1-based); of an empty stretch, the line before it."""
    new_start: int
    """The same in the new file."""
    lines: tuple[tuple[str, str], ...]
    """(sign, text) with sign ' ', '-' or '+'."""
    newline: bool = True
    """False if the diff says that a line has no newline at its end."""

    @property
    def old(self) -> tuple[str, ...]:
        """The stretch before the change."""
        return tuple(text for sign, text in self.lines if sign != "+")

    @property
    def new(self) -> tuple[str, ...]:
        """The stretch after the change."""
        return tuple(text for sign, text in self.lines if sign != "-")


@dataclass(frozen=True, kw_only=True)
class FilePatch:
    """What a diff does to one file."""

    old: str
    """Path before; '' for a new file."""
    new: str
    """Path after; '' for a file that is deleted."""
    hunks: tuple[Hunk, ...]

    @property
    def path(self) -> str:
        """The file's path, after the change if it has one."""
        return self.new or self.old

    @property
    def removed(self) -> tuple[str, ...]:
        """The lines that left, all hunks together."""
        return tuple(text for hunk in self.hunks for sign, text in hunk.lines if sign == "-")

    @property
    def added(self) -> tuple[str, ...]:
        """The lines that came."""
        return tuple(text for hunk in self.hunks for sign, text in hunk.lines if sign == "+")


def parse_patch(patch: str) -> list[FilePatch]:
    """Return the files of a unified diff that have hunks. Raises ValueError for a hunk of the wrong length."""
    lines = patch.split("\n")
    files: list[FilePatch] = []
    at = 0
    while at + 1 < len(lines):
        if not (lines[at].startswith("--- ") and lines[at + 1].startswith("+++ ")):
            at += 1
            continue
        old, new = _path(lines[at]), _path(lines[at + 1])
        at += 2
        hunks = []
        while at < len(lines) and (head := _HUNK.match(lines[at])):
            hunk, at = _hunk(lines, at + 1, head)
            hunks.append(hunk)
        files.append(FilePatch(old=old, new=new, hunks=tuple(hunks)))
    return files


def changed_paths(patch: str) -> tuple[str, ...]:
    """Return the paths of the files that a unified diff changes, in its order."""
    return tuple(dict.fromkeys(file.path for file in parse_patch(patch)))


def folders(patch: str) -> list[str]:
    """Return the names of all folders on the way to changed files, each once, in order."""
    return list(dict.fromkeys(part for path in changed_paths(patch) for part in path.split("/")[:-1]))


def _path(line: str) -> str:
    name = line[4:].split("\t", 1)[0].strip().strip('"')
    return "" if name == "/dev/null" else name.removeprefix("a/" if line.startswith("-") else "b/")


def _hunk(lines: list[str], at: int, head: re.Match[str]) -> tuple[Hunk, int]:
    """Read a hunk's body by its own counts, so that a removed line `-- x` is not taken for a header."""
    left = {"-": int(head[2] or 1), "+": int(head[4] or 1)}
    body: list[tuple[str, str]] = []
    newline = True
    while at < len(lines) and (left["-"] or left["+"] or lines[at].startswith(_NO_NEWLINE)):
        sign, text = (lines[at][:1] or " "), lines[at][1:]
        if sign == _NO_NEWLINE:
            newline = False
        elif sign not in " +-":
            break
        else:
            body.append((sign, text))
            for side in "-+" if sign == " " else sign:
                left[side] -= 1
        at += 1
    if left["-"] or left["+"]:
        raise ValueError(f"the hunk {head[0]!r} does not hold as many lines as it says")
    return Hunk(start=int(head[1]), new_start=int(head[3]), lines=tuple(body), newline=newline), at
