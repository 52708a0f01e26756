"""Leaving old tool results out of a long conversation, seldom and in bulk, so that caches stay valid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from looper.records import Message

KEEP_LAST = 2
"""The newest observations are never left out."""


class Pruner:
    """Remembers which observations are left out; once out, always out, so prefixes stay stable.

    When a conversation passes `budget` tokens, the oldest observations go until it is under half of
    it: many turns then share one prefix before the next cut (a cut voids the cache behind it).
    """

    def __init__(self, budget: int, count: Callable[[str], int]) -> None:
        self._budget = budget
        self._count = count
        self._sizes: list[int] = []
        self._out: set[int] = set()
        self.cuts = 0
        """How often observations were left out."""

    def view(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return the conversation as the model shall see it."""
        for message in messages[len(self._sizes) :]:
            self._sizes.append(self._count(message.content) + 5)
        total = sum(size for i, size in enumerate(self._sizes) if i not in self._out)
        if total > self._budget:
            total = self._cut(messages, total)
        return tuple(_omitted(m) if i in self._out else m for i, m in enumerate(messages))

    def _cut(self, messages: Sequence[Message], total: int) -> int:
        self.cuts += 1
        observations = [i for i, m in enumerate(messages) if m.role == "user" and i > 1]
        for i in observations[:-KEEP_LAST]:
            if total <= self._budget // 2:
                break
            if i not in self._out and messages[i].content.count("\n") > 0:
                self._out.add(i)
                total -= self._sizes[i] - 8
        return total

    @property
    def active(self) -> bool:
        """Whether anything is left out."""
        return bool(self._out)


def _omitted(message: Message) -> Message:
    lines = message.content.count("\n") + 1
    return Message(role=message.role, content=f"[{lines} lines left out]")
