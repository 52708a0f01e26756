"""What sessions teach, by rule: advice that a session followed or not, and the operations that follow from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from looper.learning.bullets import LONGEST, Bullets, Change, Operation
from looper.learning.patches import folders
from looper.records import Episode, Exit, Step

_FOLDER = "fixes belong in {}/"
_FOLDER_SAID = re.compile(r"fixes belong in (.+)/")
_PLAIN = re.compile(r"\w[\w.+-]{0,60}")
"""Folder names that may enter a prompt: the agent made them up, so they could hold anything."""
_COURSE = "a course that worked: "


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Advice that is worth giving once a session went wrong for want of it."""

    text: str
    missed: Callable[[Episode], bool]
    """Whether a session went wrong in the way that the advice cures."""
    followed: Callable[[Episode], bool]
    """Whether a session acted as the advice says."""


def _steps(episode: Episode, action: str, ok: bool) -> list[Step]:
    return [step for step in episode.trajectory.steps if step.action == action and step.ok is ok]


def _guessed(episode: Episode) -> bool:
    return any(not step.ok and "no such file" in step.observation for step in episode.trajectory.steps)


def _searched_first(episode: Episode) -> bool:
    kinds = [step.action for step in episode.trajectory.steps]
    return "bash" in kinds and "read" not in kinds[: kinds.index("bash")]


def _malformed(episode: Episode) -> bool:
    return any(step.action == "format" or step.calls > 1 for step in episode.trajectory.steps)


LESSONS = (
    Lesson(
        text="read the lines before you edit them, and copy the old lines exactly",
        missed=lambda e: bool(_steps(e, "edit", False)),
        followed=lambda e: bool(_steps(e, "edit", True)) and not _steps(e, "edit", False),
    ),
    Lesson(
        text="search with git grep before you read: a guessed path may not exist",
        missed=_guessed,
        followed=lambda e: _searched_first(e) and not _guessed(e),
    ),
    Lesson(
        text="answer with exactly one tool call",
        missed=_malformed,
        followed=lambda e: not _malformed(e),
    ),
    Lesson(
        text="change a file before you end the session",
        missed=lambda e: e.trajectory.exit is Exit.DONE and not e.trajectory.patch.strip(),
        followed=lambda e: bool(e.trajectory.patch.strip()),
    ),
    Lesson(
        text="do not repeat what did not work: try another way",
        missed=lambda e: e.trajectory.exit is Exit.LOOP,
        followed=lambda e: e.trajectory.exit is not Exit.LOOP,
    ),
)


def course(episode: Episode) -> str:
    """Return the kinds of a session's actions that worked, repeats taken together, as advice."""
    kinds = [step.action for step in episode.trajectory.steps if step.ok]
    kinds = [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before]
    return f"{_COURSE}{', '.join(kinds)}"


def followed(text: str, episode: Episode) -> bool:
    """Whether a session acted as a bullet says; advice that the rules do not know is never followed."""
    if said := _FOLDER_SAID.fullmatch(text):
        return said[1] in folders(episode.trajectory.patch)
    if text.startswith(_COURSE):
        return text == course(episode)
    return any(lesson.followed(episode) for lesson in LESSONS if lesson.text == text)


def operations(book: Bullets, episodes: Sequence[Episode], support: int) -> list[Operation]:
    """Return what a stage's judged sessions change in a playbook; their order does not matter.

    ADD: folders that accepted patches of `support` tasks touch; advice against failures that were seen; the course of
    actions of `support` solved tasks. EDIT: the course, where another is now the most common. Then every session that
    acted as a bullet says votes on it, up if it was resolved and down if not.
    """
    known = [bullet.text for bullet in book.bullets]
    out = []
    for text in sorted(_supported(episodes, support)):
        old = next((t for t in known if t.startswith(_COURSE)), "") if text.startswith(_COURSE) else ""
        if text in known or len(text) > LONGEST:
            continue
        if old:
            out.append(Operation(change=Change.EDIT, text=old, new=text))
            known[known.index(old)] = text
        else:
            out.append(Operation(change=Change.ADD, text=text))
            known.append(text)
    for lesson in LESSONS:
        if lesson.text not in known and any(lesson.missed(episode) for episode in episodes):
            out.append(Operation(change=Change.ADD, text=lesson.text))
            known.append(lesson.text)
    for text in known:
        votes = Counter(episode.resolved for episode in episodes if followed(text, episode))
        out += [Operation(change=Change.UPVOTE, text=text)] * votes[True]
        out += [Operation(change=Change.DOWNVOTE, text=text)] * votes[False]
    return out


def _supported(episodes: Sequence[Episode], support: int) -> set[str]:
    """Return what enough solved tasks agree on: folders, and the one most common course of actions."""
    where: dict[str, set[str]] = {}
    how: dict[str, set[str]] = {}
    for episode in episodes:
        if episode.resolved:
            for folder in filter(_PLAIN.fullmatch, folders(episode.trajectory.patch)):
                where.setdefault(_FOLDER.format(folder), set()).add(episode.task)
            how.setdefault(course(episode), set()).add(episode.task)
    found = {text for text, tasks in where.items() if len(tasks) >= support}
    best = min(how, key=lambda text: (-len(how[text]), text), default="")
    return found | {best} if best and len(how[best]) >= support else found
