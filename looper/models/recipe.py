"""A proposer that needs no model: it carries out the first edits that its prompt offers, by the agent's own tools.

The memory's ranking is then the whole policy: a bandit over real edits. It reads the file, makes the edits one by one,
and is done, as a language model would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from looper.actions import SEPARATOR, Action, Done, Edit, Read, render
from looper.errors import ModelError
from looper.records import Conversation, Message, Reply, Skill

LINES = 100
"""Lines that it reads at a time: fewer characters than an observation may have."""
_HEAD = re.compile(r"^([a-z0-9_]+):$")
_BLOCKED = re.compile(r"^- blocked ([a-z0-9_]+):", re.MULTILINE)
_SHOWN = re.compile(r"\[(?P<path>[^\s\]]+) lines (?P<first>\d+)-(?P<last>\d+) of (?P<count>\d+)\]\n")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Edits that a prompt offers under a name."""

    name: str
    edits: tuple[tuple[str, str], ...]
    """Search and replacement."""


def offers(text: str) -> Iterator[Offer]:
    """Find the offers of a prompt in their order: a line `name:`, then edits, one JSON object a line."""
    name, edits = "", list[tuple[str, str]]()
    for line in [*text.splitlines(), ""]:
        edit = _edit(line)
        if edit is not None and name:
            edits.append(edit)
            continue
        if edits:
            yield Offer(name=name, edits=tuple(edits))
        found = _HEAD.match(line)
        name, edits = found[1] if found else "", []


def _edit(line: str) -> tuple[str, str] | None:
    if not line.startswith("{"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return (row["search"], row["replace"]) if isinstance(row, dict) and set(row) == {"search", "replace"} else None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Takes the first offer of its prompt that is not blocked and makes its edits; without one it is done at once."""

    path: str = "train.py"
    """File that the edits are for."""

    @property
    def id(self) -> str:
        """Identity: the rule by which it proposes."""
        return f"recipe-1-{self.path}"

    @property
    def knows_protocol(self) -> bool:
        """It needs no manual."""
        return True

    @property
    def proposes_offers(self) -> bool:
        """It can only do what its prompt offers."""
        return True

    @property
    def weights(self) -> None:
        """There is nothing to train."""
        return None

    def tokens(self, text: str) -> int:
        """Estimate the tokens of a text: four characters each."""
        return -(-len(text) // 4)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer each conversation with one tool call."""
        return [Reply(text=self._turn(one.messages)) for one in conversations]

    def with_skill(self, skill: Skill) -> Recipe:
        """Return itself. Raises ModelError for adapters, which it cannot take."""
        if skill.adapters:
            raise ModelError(f"model=recipe cannot take adapters ({skill.adapters[0].path}); choose strategy=none")
        return self

    def forget(self, conversation: str) -> None:
        """Nothing is cached."""

    def _turn(self, messages: Sequence[Message]) -> str:
        asked = next(message.content for message in messages if message.role == "user")
        blocked = set(_BLOCKED.findall(asked))
        offer = next((one for one in offers(asked) if one.name not in blocked), None)
        if offer is None:
            return render(Done())
        return f"<think>{offer.name}</think>{render(self._next(messages, offer))}"

    def _next(self, messages: Sequence[Message], offer: Offer) -> Action:
        lines, count = _read(messages, self.path)
        if len(lines) < count:
            return Read(path=self.path, first=len(lines) + 1, last=min(len(lines) + LINES, count))
        made = sum(m.role == "assistant" and "</think><edit" in m.content for m in messages)
        failed = messages[-1].content.startswith("Error:")
        edits = list(steps("\n".join(lines), offer, self.path))
        return Done() if failed or made >= len(edits) else edits[made]


def _read(messages: Sequence[Message], path: str) -> tuple[list[str], int]:
    """Return the lines of the file that were shown so far, and how many it has; one before it was looked at."""
    lines, count = list[str](), 1
    for message in messages:
        shown = _SHOWN.match(message.content) if message.role == "user" else None
        if shown and shown["path"] == path:
            lines += message.content[shown.end() :].split("\n")
            count = int(shown["count"])
    return lines, count


def steps(text: str, offer: Offer, path: str) -> Iterator[Edit]:
    """Turn an offer into edits of whole lines, each unique in the text as it is by then.

    Ends early where the place of an edit is not in the text exactly once; the agent is done then, half-way.
    """
    for search, replace in offer.edits:
        if text.count(search) != 1:
            return
        start = text.index(search)
        end = start + len(search)
        first = text.rfind("\n", 0, start) + 1
        last = end if search.endswith("\n") else (text + "\n").index("\n", end)
        old = text[first:last].removesuffix("\n")
        new = (text[first:start] + replace + text[end:last]).removesuffix("\n")
        while _stands(text, old) > 1 and first > 0:  # a line above tells it apart
            above = text.rfind("\n", 0, first - 1) + 1
            old, new, first = text[above:first] + old, text[above:first] + new, above
        if SEPARATOR in old.split("\n") + new.split("\n"):
            return
        yield Edit(path=path, old=old, new=new)
        text = text[:start] + replace + text[end:]


def _stands(text: str, old: str) -> int:
    lines, wanted = text.split("\n"), old.split("\n")
    return sum(lines[i : i + len(wanted)] == wanted for i in range(len(lines) - len(wanted) + 1))
