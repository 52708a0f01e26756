"""The XML tool language: any text becomes an action or a format error; actions become text again.

    <bash>command</bash>                     run a shell command
    <read>path</read>, <read>path:10-40</read>  show a file, or some of its lines
    <edit path="p">                          replace text: old lines, a line of seven `=`, new lines
    <write path="p">text</write>             write a whole file
    <done/>                                  end the session

One tool a turn. `<think>...</think>` may stand anywhere and is not acted on. Parsing never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

SEPARATOR = "======="

_OPEN = re.compile(r"<(bash|read|edit|write|done)\b([^<>]{0,300})>", re.IGNORECASE)
_CLOSE = {k: re.compile(f"</{k}>", re.IGNORECASE) for k in ("bash", "read", "edit", "write", "done")}
_THOUGHT = re.compile(r"<think>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</think>", re.IGNORECASE)
_PATH = re.compile(r"""path\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'/>]+(?:/[^\s"'/>]+)*))""")
_RANGE = re.compile(r"^(.*?):\s*(\d{1,9})\s*(?:[-,:]\s*(\d{1,9}))?\s*$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Bash:
    """Run a shell command in the checkout's root."""

    kind: ClassVar[str] = "bash"
    command: str


@dataclass(frozen=True, kw_only=True)
class Read:
    """Show a file, or its lines `first` to `last` (1-based, inclusive)."""

    kind: ClassVar[str] = "read"
    path: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Replace `old` (whole lines) by `new` in a file."""

    kind: ClassVar[str] = "edit"
    path: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Write:
    """Write a whole file."""

    kind: ClassVar[str] = "write"
    path: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """End the session."""

    kind: ClassVar[str] = "done"


@dataclass(frozen=True, kw_only=True)
class FormatError:
    """A reply that is no action; `reason` tells the agent what to do instead."""

    kind: ClassVar[str] = "format"
    reason: str


Action = Bash | Read | Edit | Write | Done


def parse(text: str) -> Action | FormatError:
    """Return the first tool call of a reply, or a format error. Never raises, whatever the text."""
    text = _without_thoughts(text)
    opened = _OPEN.search(text)
    if opened is None:
        return FormatError(reason="no tool call found")
    kind, attributes = opened[1].lower(), opened[2]
    if kind == "done":
        return Done()
    if attributes.rstrip().endswith("/"):
        return FormatError(reason=f"<{kind}/> is empty")
    closed = _CLOSE[kind].search(text, opened.end())
    if closed is None and kind in ("edit", "write"):
        return FormatError(reason=f"<{kind}> is not closed with </{kind}>")
    body = text[opened.end() : closed.start() if closed else None]
    if kind == "bash":
        return Bash(command=body.strip()) if body.strip() else FormatError(reason="<bash> holds no command")
    if kind == "read":
        return _read(body)
    return _file_action(kind, attributes, body)


def count_calls(text: str) -> int:
    """Return how many tool calls a reply opens (outside thoughts); only the first is run."""
    text = _without_thoughts(text)
    count, at = 0, 0
    while opened := _OPEN.search(text, at):
        count += 1
        closed = _CLOSE[opened[1].lower()].search(text, opened.end())
        at = closed.start() if closed else opened.end()
    return count


def render(action: Action) -> str:
    """Return the text that parses to this action. Raises ValueError where none does."""
    text = _render(action)
    if parse(text) != action:
        raise ValueError(f"not expressible in the tool language: {action!r}")
    return text


def _render(action: Action) -> str:
    match action:
        case Bash(command=command):
            return f"<bash>{command}</bash>"
        case Read(path=path, first=None):
            return f"<read>{path}</read>"
        case Read(path=path, first=first, last=last):
            return f"<read>{path}:{first}-{last}</read>"
        case Edit(path=path, old=old, new=new):
            new = f"{new}\n" if new else ""
            return f'<edit path="{path}">\n{old}\n{SEPARATOR}\n{new}</edit>'
        case Write(path=path, text=text):
            return f'<write path="{path}">\n{text}</write>'
        case Done():
            return "<done/>"


def _without_thoughts(text: str) -> str:
    """Drop closed thoughts; of an unclosed one only the tag, so that the call after it still counts."""
    out, at = [], 0
    while opened := _THOUGHT.search(text, at):
        out.append(text[at : opened.start()])
        closed = _THOUGHT_END.search(text, opened.end())
        at = (closed or opened).end()
    out.append(text[at:])
    return "".join(out)


def _read(body: str) -> Action | FormatError:
    lines = body.strip().splitlines()
    if not lines or not lines[0].strip():
        return FormatError(reason="<read> names no file")
    target = lines[0].strip()
    ranged = _RANGE.match(target)
    if ranged is None:
        return Read(path=target)
    path, first = ranged[1].strip(), max(1, int(ranged[2]))
    last = int(ranged[3]) if ranged[3] else first
    if not path:
        return FormatError(reason="<read> names no file")
    if last < first:
        return FormatError(reason=f"<read> asks for lines {first}-{last}: the last is before the first")
    return Read(path=path, first=first, last=last)


def _file_action(kind: str, attributes: str, body: str) -> Action | FormatError:
    found = _PATH.search(attributes)
    path = next((g for g in found.groups() if g), "").strip() if found else ""
    if not path:
        return FormatError(reason=f'<{kind}> needs a path: <{kind} path="file">')
    body = body.removeprefix("\r").removeprefix("\n")
    if kind == "write":
        return Write(path=path, text=body)
    lines = body.removesuffix("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    if lines and lines[0].startswith("<<<<<<<"):
        lines = lines[1:]
    if lines and lines[-1].startswith(">>>>>>>"):
        lines = lines[:-1]
    if SEPARATOR not in lines:
        return FormatError(reason=f"<edit> needs old lines, a line {SEPARATOR}, new lines")
    cut = lines.index(SEPARATOR)
    old, new = "\n".join(lines[:cut]), "\n".join(lines[cut + 1 :])
    if not old.strip():
        return FormatError(reason="<edit> names no old lines to replace")
    return Edit(path=path, old=old, new=new)
