"""What a unified diff changes: files, and the lines that left and came."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_HUNK = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


@dataclass(kw_only=True)
class FileChange:
    """The changes of one file, all hunks together."""

    path: str
    removed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)


def changes(patch: str) -> list[FileChange]:
    """Return the changed files of a patch in its order; binary changes and mere renames have no lines."""
    found: list[FileChange] = []
    before = ""
    left = right = 0  # lines of the hunk that are still to come: a removed "-- x" looks like a header else
    for line in patch.split("\n"):
        if left > 0 or right > 0:
            kind, text = line[:1], line[1:]
            if kind == "-":
                found[-1].removed.append(text)
                left -= 1
            elif kind == "+":
                found[-1].added.append(text)
                right -= 1
            elif kind != "\\":
                left, right = left - 1, right - 1
        elif line.startswith("--- "):
            before = _path(line)
        elif line.startswith("+++ "):
            found.append(FileChange(path=_path(line) or before))
        elif found and (hunk := _HUNK.match(line)):
            left, right = (int(count) if count is not None else 1 for count in hunk.groups())
    return found


def folders(patch: str) -> list[str]:
    """Return the names of all folders on the way to changed files, each once, in order."""
    return list(dict.fromkeys(part for change in changes(patch) for part in change.path.split("/")[:-1]))


def _path(header: str) -> str:
    """Return the path of a header line without `a/` or `b/`; '' for /dev/null."""
    name = header[4:].split("\t", 1)[0].strip().strip('"')
    return "" if name == "/dev/null" else re.sub(r"^[ab]/", "", name)
