"""A reference patch played as a session: the calls that make it, and what the tools would print."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from looper.actions import Action, Bash, Done, Edit, Read, Write, render
from looper.learning.data.changes import Change, Unplayable, applied, change_of, definition, patched
from looper.learning.patches import FilePatch, parse_patch
from looper.parsing import parsed
from looper.records import Task

WINDOW = 9
"""Lines read beyond the line that the search showed."""
REACH = 30
"""A definition is read together with a change up to so many lines below it."""
LONGEST = 6000
"""Characters of an observation from which the agent's tools leave out the middle."""
EMPTY = "(no output)"
"""What the tools show of a command that prints nothing."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Which tools a system prompt offers."""

    edit: bool
    line_ranges: bool

    @classmethod
    def of(cls, system: str) -> Offer:
        """Read a system prompt, the manual or the short one."""
        return cls(
            edit="<edit path=" in system or "read, edit, write" in system,
            line_ranges="path:10-40" in system or "Read line ranges." in system,
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A call and what it shows."""

    reply: str
    observation: str


def session_from_patch(task: Task, offer: Offer) -> list[Turn]:
    """Return the turns of a session that makes a task's reference patch. Raises Unplayable."""
    if not task.gold.strip():
        raise Unplayable("without a reference patch")
    try:
        patches = parse_patch(task.gold)
    except ValueError as error:
        raise Unplayable("a patch with a damaged hunk") from error
    if not patches or sum(line.startswith("diff --git ") for line in task.gold.split("\n")) > len(patches):
        raise Unplayable("a patch with a file without hunks (its mode, its name, or an empty or binary file)")
    files = dict(task.source.files)
    turns: list[Turn] = []
    for patch in patches:
        if not all(hunk.newline for hunk in patch.hunks) or (patch.old and patch.new and patch.old != patch.new):
            raise Unplayable("a patch that renames, or is about a newline at the end")
        if files:
            turns += _inline(files, patch, offer)
        else:
            turns += _from_context(patch, offer)
    return [*turns, _turn(Done(), "")]


def _turn(action: Action, observation: str) -> Turn:
    try:
        return Turn(reply=render(action), observation=observation)
    except ValueError as error:
        raise Unplayable("a change that the tool language cannot say") from error


def _inline(files: dict[str, str], patch: FilePatch, offer: Offer) -> Iterator[Turn]:
    """Yield the turns for one file of a tree at hand, and change the tree as they do."""
    path = patch.path
    if not patch.old:  # not among `files`: git grep finds tracked files only
        yield _written(path, _body(patch))
    elif path not in files:
        raise Unplayable("a patch that does not fit the tree")
    elif not patch.new:
        del files[path]
        yield _removed(path)
    elif not offer.edit or not files[path].strip():  # an empty file has no old lines to replace
        yield from _rewritten(files, patch)
    else:
        yield from _edited(files, patch, offer)


def _rewritten(files: dict[str, str], patch: FilePatch) -> Iterator[Turn]:
    path = patch.path
    if files[path].strip():
        lines = files[path].split("\n")
        yield from _searched(files, path, definition(lines, change_of(lines, patch.hunks[0], 0).at))
        yield _shown(path, files[path], None)
    files[path] = "\n".join(patched(files[path].split("\n"), patch.hunks))
    yield _written(path, files[path])


def _edited(files: dict[str, str], patch: FilePatch, offer: Offer) -> Iterator[Turn]:
    path, shift = patch.path, 0
    for hunk in patch.hunks:
        lines = files[path].split("\n")
        change = change_of(lines, hunk, shift)
        defined = definition(lines, change.at)
        if hunk is patch.hunks[0]:
            yield from _searched(files, path, defined)
        yield _shown(path, files[path], _window(change, defined, len(lines)) if offer.line_ranges else None)
        edit = Edit(path=path, old="\n".join(lines[change.at : change.end]), new="\n".join(change.new))
        yield _turn(edit, f"Edited {path} line {change.at + 1}.")
        files[path] = "\n".join(applied(lines, change))
        _check_parses(path, files[path])
        shift += len(hunk.new) - len(hunk.old)


def _searched(files: dict[str, str], path: str, defined: tuple[int, str] | None) -> Iterator[Turn]:
    """Yield the search for a definition, unless there is none or its answer would be cut."""
    if defined is None:
        return
    line = files[path].split("\n")[defined[0]]
    words = f"{'class' if line.lstrip().startswith('class') else 'def'} {defined[1]}"
    hits = [
        f"{name}:{number}:{text}"
        for name in sorted(files, key=str.encode)
        for number, text in enumerate(files[name].split("\n"), 1)
        if words in text
    ]
    shown = "\n".join(hits).rstrip()
    if len(shown) <= LONGEST:
        yield _turn(Bash(command=f'git grep -n "{words}"'), shown)


def _window(change: Change, defined: tuple[int, str] | None, count: int) -> tuple[int, int]:
    """Return the lines (1-based) to read before a change: from the definition if it is near."""
    first = change.at - 3
    if defined is not None and change.at - REACH <= defined[0] <= change.at:
        first = defined[0]
    first = max(0, min(first, change.at))
    return first + 1, min(max(first + 1 + WINDOW, change.end), max(count, 1))


def _shown(path: str, text: str, window: tuple[int, int] | None) -> Turn:
    """Return the reading of a file, or of some of its lines."""
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    first, last = window or (1, len(lines))
    action = Read(path=path, first=first, last=last) if window else Read(path=path)
    last = min(last, len(lines))
    body = "\n".join(lines[first - 1 : last])
    shown = f"[{path} lines {first}-{last} of {len(lines)}]\n{body}"
    if len(shown) > LONGEST:
        raise Unplayable("lines too long to be shown whole")
    return _turn(action, shown)


def _written(path: str, text: str) -> Turn:
    if text and not text.endswith("\n"):  # the tool would add a newline that the patch does not
        raise Unplayable("a patch that renames, or is about a newline at the end")
    _check_parses(path, text)
    return _turn(Write(path=path, text=text), f"Wrote {path}, {text.count(chr(10))} lines.")


def _body(patch: FilePatch) -> str:
    return "".join(f"{line}\n" for hunk in patch.hunks for line in hunk.new)


def _removed(path: str) -> Turn:
    return _turn(Bash(command=f"rm {shlex.quote(path)}"), EMPTY)


def _check_parses(path: str, text: str) -> None:
    """Refuse a step after which the tools would warn of a file that no longer parses."""
    if not path.endswith(".py"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unplayable("a step that leaves a file that does not parse") from error


def _from_context(patch: FilePatch, offer: Offer) -> Iterator[Turn]:
    """Yield the turns for one file that is not at hand, as far as the patch's own context tells."""
    path = patch.path
    if not patch.old:
        yield _written(path, _body(patch))
        return
    if not patch.new:
        yield _removed(path)
        return
    if not offer.edit:
        raise Unplayable("a whole file to write that is not at hand")
    for hunk in patch.hunks:
        old, new = "\n".join(hunk.old), "\n".join(hunk.new)
        if not old.strip() or (new == "" and hunk.new) or len(old) > LONGEST:
            raise Unplayable("a hunk without context")
        # Hunks before this one are made by now, so its lines stand where the new file has them.
        first, last = hunk.new_start, hunk.new_start + len(hunk.old) - 1
        yield _turn(Bash(command=f"sed -n '{first},{last}p' {shlex.quote(path)}"), old.rstrip())
        yield _turn(Edit(path=path, old=old, new=new), f"Edited {path} line {first}.")
