"""The playbook as data: bullets with counters, the operations that change them, and their text in the prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from looper.errors import StoreError, TrainingError

HEADING = "Learned in past sessions (+helped -harmed):"
"""Line between text that was given and bullets that were learned."""
LONGEST = 300
"""Most characters of a bullet."""
_BULLET = re.compile(r"- (?P<text>\S.*) \(\+(?P<helpful>\d{1,9}) -(?P<harmful>\d{1,9})\)")


class Change(Enum):
    """What an operation does."""

    ADD = "add"
    UPVOTE = "upvote"
    DOWNVOTE = "downvote"
    EDIT = "edit"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One change of a playbook."""

    change: Change
    text: str
    """Text of the bullet it is about."""
    new: str = ""
    """What EDIT puts in its place; the counters stay."""


@dataclass(frozen=True, kw_only=True)
class Bullet:
    """One piece of advice, and how it did."""

    text: str
    helpful: int = 0
    """Resolved sessions that acted as it says."""
    harmful: int = 0
    """Failed sessions that acted as it says."""

    def __post_init__(self) -> None:
        if self.text != " ".join(self.text.split()) or not 0 < len(self.text) <= LONGEST:
            raise TrainingError(f"a bullet is one line of 1 to {LONGEST} characters, not {self.text[:80]!r}")

    def score(self, harm: float) -> float:
        """Return helpful votes less `harm` times harmful ones."""
        return self.helpful - harm * self.harmful


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """A playbook: text that was given, kept word for word, then bullets that were learned."""

    given: str = ""
    bullets: tuple[Bullet, ...] = ()

    def __post_init__(self) -> None:
        if HEADING in self.given.split("\n"):
            raise TrainingError(f"the given part of a playbook cannot hold the line {HEADING!r}")

    def find(self, text: str) -> Bullet | None:
        """Return the bullet with a text; None if there is none."""
        return next((bullet for bullet in self.bullets if bullet.text == text), None)

    def render(self) -> str:
        """Return the text for the prompt, which `read` turns back into the same playbook; '' for an empty one."""
        lines = [f"- {b.text} (+{b.helpful} -{b.harmful})" for b in self.bullets]
        learned = "\n".join([HEADING, *lines]) if lines else ""
        return "\n".join(part for part in (self.given, learned) if part)


def read(text: str) -> Bullets:
    """Return the playbook that was rendered as `text`; text without the heading is taken as given.

    Raises StoreError if a line after the heading is no bullet.
    """
    lines = text.split("\n")
    if HEADING not in lines:
        return Bullets(given=text)
    cut = lines.index(HEADING)
    bullets = []
    for number, line in enumerate(lines[cut + 1 :], cut + 2):
        found = _BULLET.fullmatch(line)
        if found is None:
            raise StoreError(
                f"line {number} of the playbook is no bullet: {line[:80]!r}; bullets read '- advice (+3 -1)', and all "
                f"lines after {HEADING!r} are bullets"
            )
        bullets.append(Bullet(text=found["text"], helpful=int(found["helpful"]), harmful=int(found["harmful"])))
    return Bullets(given="\n".join(lines[:cut]), bullets=tuple(bullets))


def apply(book: Bullets, operations: Sequence[Operation]) -> Bullets:
    """Return the playbook after the operations, in their order.

    Raises TrainingError for a bullet that is added twice, or voted on or edited without being there.
    """
    bullets = {bullet.text: bullet for bullet in book.bullets}
    for operation in operations:
        text = operation.text
        there = bullets.get(text)
        if operation.change is Change.ADD:
            if there is not None:
                raise TrainingError(f"the playbook has the bullet {text!r} already: vote on it instead")
            bullets[text] = Bullet(text=text)
            continue
        if there is None:
            raise TrainingError(f"the playbook has no bullet {text!r} to {operation.change.value}: add it first")
        if operation.change is Change.UPVOTE:
            bullets[text] = replace(there, helpful=there.helpful + 1)
        elif operation.change is Change.DOWNVOTE:
            bullets[text] = replace(there, harmful=there.harmful + 1)
        else:
            if operation.new in bullets:
                raise TrainingError(f"the playbook has the bullet {operation.new!r} already: {text!r} cannot become it")
            edited = replace(there, text=operation.new)
            bullets = {b.text: b for b in (edited if b.text == text else b for b in bullets.values())}
    return replace(book, bullets=tuple(bullets.values()))


def pruned(book: Bullets, *, count: int, characters: int, harm: float) -> Bullets:
    """Return the playbook with its best bullets, best first, as many as fit into `count` and `characters`.

    Bullets with a negative score go; the given text is never cut.
    """
    good = [bullet for bullet in book.bullets if bullet.score(harm) >= 0]
    good.sort(key=lambda b: (-b.score(harm), -b.helpful, b.text))
    kept = replace(book, bullets=tuple(good[:count]))
    while kept.bullets and len(kept.render()) > characters:
        kept = replace(kept, bullets=kept.bullets[:-1])
    return kept
