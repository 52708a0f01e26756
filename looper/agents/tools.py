"""Carrying out an action in a box: what the agent sees of it, and whether it worked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from looper.actions import Action, Bash, Done, Edit, Read, Write
from looper.agents.edits import apply_edit, strip_fences
from looper.agents.indentation import Refused
from looper.agents.prompt import Prompt
from looper.errors import WorkspaceError
from looper.parsing import parsed
from looper.protocols import Box

OBSERVATION_CHARS = 6000
"""Longest observation; longer ones lose their middle."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of an action."""

    observation: str
    ok: bool = True
    changed: bool = False
    """Whether a file was written."""


def perform(action: Action, box: Box, prompt: Prompt, *, seconds: float) -> Outcome:
    """Carry out an action; what goes wrong inside is an observation, not an exception."""
    try:
        match action:
            case Bash(command=command):
                return _bash(box, command, seconds)
            case Read():
                return _read(box, action, prompt)
            case Edit() if prompt.edit_tool:
                return _edit(box, action, prompt)
            case Edit():
                return Outcome(observation="Error: there is no <edit> tool; use <write>.", ok=False)
            case Write():
                return _write(box, action, prompt)
            case Done():
                return Outcome(observation="")
    except FileNotFoundError:
        return Outcome(observation=f"Error: no such file: {_path(action)}", ok=False)
    except IsADirectoryError:
        return Outcome(observation=f"Error: {_path(action)} is a folder; list it with <bash>ls</bash>.", ok=False)
    except NotADirectoryError:
        return Outcome(observation=f"Error: a part of {_path(action)} is a file, not a folder.", ok=False)
    except WorkspaceError as error:
        return Outcome(observation=f"Error: {error}", ok=False)


def _path(action: Action) -> str:
    return action.path if isinstance(action, Read | Edit | Write) else ""


def shortened(text: str, limit: int = OBSERVATION_CHARS) -> str:
    """Cut a long text's middle, at line ends where possible."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[-limit // 2 :]
    head = head[: head.rfind("\n") + 1] or head
    tail = tail[tail.find("\n") + 1 :] or tail
    return f"{head}[{len(text) - len(head) - len(tail)} characters left out]\n{tail}"


def _bash(box: Box, command: str, seconds: float) -> Outcome:
    result = box.run(command, seconds=seconds)
    text = shortened(result.output.rstrip())
    if result.timed_out:
        note = f"[stopped after {seconds:g} seconds]"
    else:
        note = f"[exit code {result.exit_code}]" if result.exit_code else ""
    lines = [part for part in (text, note) if part]
    return Outcome(observation="\n".join(lines) or "(no output)", ok=not result.timed_out, changed=False)


def _read(box: Box, action: Read, prompt: Prompt) -> Outcome:
    text = box.read(action.path)
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    first, last = 1, len(lines)
    if prompt.line_ranges and action.first is not None:
        first, last = action.first, min(action.last or action.first, len(lines))
        if first > len(lines):
            return Outcome(observation=f"Error: {action.path} has only {len(lines)} lines.", ok=False)
    body = "\n".join(lines[first - 1 : last])
    return Outcome(observation=shortened(f"[{action.path} lines {first}-{last} of {len(lines)}]\n{body}"))


def _edit(box: Box, action: Edit, prompt: Prompt) -> Outcome:
    old, new = action.old, action.new
    if prompt.strip_fences:
        old, new = strip_fences(old), strip_fences(new)
    if not old.strip():
        return Outcome(observation="Error: <edit> names no old lines to replace.", ok=False)
    before = box.read(action.path)
    edited = apply_edit(before, old, new, fuzzy=prompt.fuzzy_edit)
    if isinstance(edited, Refused):
        return Outcome(observation=f"Error: {edited.reason}", ok=False)
    if edited.text == before:
        return Outcome(observation="Error: the edit changes nothing.", ok=False)
    box.write(action.path, edited.text)
    how = "" if edited.exact else " (nearest match)"
    return Outcome(
        observation=f"Edited {action.path} line {edited.line}{how}.{_parses(action.path, edited.text)}", changed=True
    )


def _write(box: Box, action: Write, prompt: Prompt) -> Outcome:
    text = strip_fences(action.text) if prompt.strip_fences else action.text
    if text and not text.endswith("\n"):
        text += "\n"
    box.write(action.path, text)
    count = text.count("\n")
    return Outcome(observation=f"Wrote {action.path}, {count} lines.{_parses(action.path, text)}", changed=True)


def _parses(path: str, text: str) -> str:
    """Return a warning if a Python file no longer parses, else ''."""
    if not path.endswith(".py"):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed(text)
    except SyntaxError as error:
        return f" Warning: it no longer parses: line {error.lineno}: {error.msg}."
    except (ValueError, RecursionError, MemoryError) as error:
        return f" Warning: it no longer parses: {error}."
    return ""
