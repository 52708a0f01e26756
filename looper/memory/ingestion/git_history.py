"""What git still has of the commits that a campaign's table names: code, settings, times, ancestors, diffs.

A few calls of git answer for all rows together; a call for each row would be most of the time that an import takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from looper.memory.ingestion.git_calls import git

_FAR = 100_000
"""Most commits of history that are looked at."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The commits of a table's rows, in the table's order."""

    folder: Path
    code: str
    """Path of the file that is experimented with."""
    commits: tuple[str, ...]
    """Full hashes; '' where git does not have the commit."""
    codes: tuple[str, ...]
    """Text of the code at each commit; '' where there is none."""
    settings: tuple[str, ...]
    """Text of the frozen half at each commit; '' where there is none."""
    times: Mapping[str, float]
    """When each commit was made, in seconds since the epoch."""
    parents: Mapping[str, str]
    """First parent of each commit, and of their ancestors."""

    def parent(self, number: int, kept: Sequence[int]) -> int | None:
        """Return the row whose code a row changed: its nearest ancestor in the table, else the last one kept."""
        commit = self.commits[number]
        rows = {self.commits[n]: n for n in range(number) if self.commits[n]}
        while commit:
            commit = self.parents.get(commit, "")
            if commit in rows:
                return rows[commit]
        return kept[-1] if kept else None

    def diff(self, number: int, parent: int | None) -> str:
        """Return what a row changed in the code against its parent, or against git's own parent; '' for a baseline."""
        commit = self.commits[number]
        if parent is None:
            return ""  # the baseline is where the campaign begins, not what its commit changed
        before = self.commits[parent] or self.parents.get(commit, "")
        if not commit or not before:
            return ""
        options = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
        out = git("diff", *options, before, commit, "--", self.code, cwd=self.folder) or b""
        return out.decode("utf-8", errors="replace")


def read_history(folder: Path, names: Sequence[str], *, code: str, settings: str) -> History:
    """Look the commits up by their short hashes, whether a branch still leads to them or not."""
    asked = [f"{name}^{{commit}}" for name in names if re.fullmatch(r"[0-9a-f]{4,64}", name)]
    found = {}
    # A folder that is no repository has no commits: git ends with 128.
    out = git("cat-file", "--batch-check", cwd=folder, text_in="\n".join(asked), okay=(128,)) or b""
    for name, told in zip(asked, out.decode(errors="replace").splitlines(), strict=False):
        if match := re.fullmatch(r"([0-9a-f]{40,64}) commit \d+", told):
            found[name.removesuffix("^{commit}")] = match.group(1)
    commits = tuple(found.get(name, "") for name in names)
    times: dict[str, float] = {}
    parents: dict[str, str] = {}
    there = sorted(set(found.values()))
    if there:
        log = git("log", f"--max-count={_FAR}", "--format=%H %ct %P", "--stdin", cwd=folder, text_in="\n".join(there))
        for row in (log or b"").decode().splitlines():
            commit, when, *above = row.split()
            times[commit] = float(when)
            parents[commit] = above[0] if above else ""
    texts = _texts(folder, [f"{commit}:{path}" for path in (code, settings) for commit in there])
    return History(
        folder=folder,
        code=code,
        commits=commits,
        codes=tuple(texts.get(f"{commit}:{code}", "") for commit in commits),
        settings=tuple(texts.get(f"{commit}:{settings}", "") for commit in commits),
        times=times,
        parents=parents,
    )


def _texts(folder: Path, wanted: Sequence[str]) -> dict[str, str]:
    """Return the files of commits (`commit:path`) that there are."""
    if not wanted:
        return {}
    out = git("cat-file", "--batch", cwd=folder, text_in="\n".join(wanted)) or b""
    return {name: data.decode("utf-8", errors="replace") for name, data in zip(wanted, _objects(out), strict=True)}


def _objects(out: bytes) -> Iterator[bytes]:
    """Read what `cat-file --batch` prints: a head with kind and size, then the object; nothing for a missing one."""
    at = 0
    while at < len(out):
        end = out.index(b"\n", at)
        head = out[at:end].split()
        at = end + 1
        if len(head) == 3 and head[2].isdigit():
            size = int(head[2])
            yield out[at : at + size] if head[1] == b"blob" else b""
            at += size + 1
        else:
            yield b""
