"""What a recorded session shows: which search found the file, what failed and what cured it, what was changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from looper import actions
from looper.learning.data.native import replies_match
from looper.learning.patches import changed_paths
from looper.protocols import Materials
from looper.records import Episode, Step

_HIT = re.compile(r"^([^\s:]+):(\d+):")
SHORT = 400
"""Characters up to which an issue is quoted whole in every question about it."""
_NOTES = "Notes from past sessions:\n"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A step that went well, as a call in the tool language."""

    action: actions.Action
    text: str
    before: str
    """What the agent saw last when it made the call."""
    after: str
    """What it saw then."""


@dataclass(frozen=True, kw_only=True)
class Cure:
    """A step that failed and the step that then worked."""

    failed: str
    kind: str
    """Kind of the call that failed; `format` if it was none."""
    error: str
    cure: str
    at: int
    """Index of the failed step."""
    cured_at: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """A search that showed the place of the change."""

    call: Call
    path: str
    hit: str
    """The line of the search's answer that shows the place."""
    others: tuple[str, ...]
    """Other files that the same search showed and that were not changed."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One session's facts, in its order."""

    task: str
    episode: str
    repository: str
    issue: str
    summary: str
    """The issue if it is short, else its first line."""
    resolved: bool
    exit: str
    changed: tuple[str, ...]
    """Files that the session's patch changes."""
    found: tuple[Found, ...]
    cures: tuple[Cure, ...]
    calls: tuple[Call, ...]
    transcript: str


def facts_of(episode: Episode, materials: Materials) -> Facts:
    """Read a session. Raises TrainingError if its steps are not its messages."""
    replies_match(episode)
    trajectory = episode.trajectory
    task = materials.tasks.get(episode.task)
    opening = next((m.content for m in trajectory.messages if m.role == "user"), "")
    issue = task.issue.strip() if task else issue_in(opening)
    changed = changed_paths(trajectory.patch)
    calls = _calls(trajectory.steps)
    return Facts(
        task=episode.task,
        episode=episode.digest,
        repository=task.source.name if task else episode.family,
        issue=issue,
        summary=issue if len(issue) <= SHORT else next(line.strip() for line in issue.split("\n") if line.strip()),
        resolved=episode.resolved,
        exit=trajectory.exit.value,
        changed=changed,
        found=tuple(found for call in calls if (found := _found(call, changed)) is not None),
        cures=cures_of(trajectory.steps),
        calls=calls,
        transcript="\n".join(f"[{m.role}]\n{m.content}" for m in trajectory.messages if m.role != "system"),
    )


def issue_in(opening: str) -> str:
    """Return the issue of a session's first user message, without the notes before it."""
    if opening.startswith(_NOTES):
        lines = opening.split("\n")[1:]
        while lines and lines[0].startswith("- "):
            lines = lines[1:]
        opening = "\n".join(lines)
    return opening.removeprefix("Issue: ").strip()


def cures_of(steps: Sequence[Step]) -> tuple[Cure, ...]:
    """Return each failed step with the first later one that did what it was meant to.

    After a reply that is no action, that is any action. Of several failures in a row with one cure all are returned. A
    cure that was cut, or held calls that were not run, is nothing to imitate: its failures are left out.
    """
    out = []
    for i, step in enumerate(steps):
        if step.ok:
            continue
        j = next((j for j in range(i + 1, len(steps)) if steps[j].ok and _answers(step, steps[j])), None)
        if j is not None and steps[j].calls == 1 and not steps[j].cut:
            error = step.observation.strip()
            cure = Cure(
                failed=step.reply.strip(), kind=step.action, error=error, cure=steps[j].reply.strip(), at=i, cured_at=j
            )
            out.append(cure)
    return tuple(out)


def _answers(failed: Step, later: Step) -> bool:
    """Whether a later step does what the failed one was meant to do."""
    if failed.action == actions.FormatError.kind:
        return later.action != actions.FormatError.kind
    if failed.action == actions.Read.kind:
        return later.action == actions.Read.kind
    # A change of another file does not repair this one. A command fails only by being stopped, or blocked as a
    # repetition, and no other command is known to be what it should have been.
    changes = {actions.Edit.kind, actions.Write.kind}
    return {failed.action, later.action} <= changes and _path(failed.reply) == _path(later.reply)


def _path(reply: str) -> str:
    action = actions.parse(reply)
    return action.path if isinstance(action, actions.Read | actions.Edit | actions.Write) else ""


def _calls(steps: Sequence[Step]) -> tuple[Call, ...]:
    out = []
    before = ""
    for step in steps:
        action = actions.parse(step.reply)
        if step.ok and not isinstance(action, actions.FormatError) and (text := _rendered(action)):
            out.append(Call(action=action, text=text, before=before, after=step.observation))
        before = step.observation
    return tuple(out)


def _rendered(action: actions.Action) -> str:
    """Return a call's plain text without what the model thought; '' for what cannot be written again."""
    try:
        return actions.render(action)
    except ValueError:
        return ""


def _found(call: Call, changed: Sequence[str]) -> Found | None:
    if not isinstance(call.action, actions.Bash):
        return None
    hits = [(m[1].removeprefix("./"), line) for line in call.after.split("\n") if (m := _HIT.match(line))]
    paths = list(dict.fromkeys(path for path, _ in hits))
    path = next((path for path in paths if path in changed), None)
    if path is None:
        return None
    hit = next(line for name, line in hits if name == path)
    return Found(call=call, path=path, hit=hit, others=tuple(p for p in paths if p not in changed))
