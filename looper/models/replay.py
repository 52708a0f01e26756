"""A model that plays recorded replies: for tests, and for looking again at runs of models that cost money."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from looper.errors import ModelError
from looper.records import Conversation, Message, Reply, Skill, digest_of


def key_of(messages: Sequence[Message]) -> str:
    """Return what a recording is found by: the digest of the first user message's text."""
    for message in messages:
        if message.role == "user":
            return digest_of(message.content)
    raise ModelError("a conversation without a user message has no recording; give it one")


def record(path: Path, conversations: Iterable[Sequence[Message]]) -> None:
    """Write the assistant's turns of complete conversations, one JSON line each.

    Raises ModelError if two conversations begin alike but go on differently: only one could be played.
    """
    rows: dict[str, dict[str, Any]] = {}
    for messages in conversations:
        task = key_of(messages)
        row = {"task": task, "replies": [m.content for m in messages if m.role == "assistant"]}
        if rows.setdefault(task, row) != row:
            raise ModelError(f"two conversations begin with the same user message ({task}); record one of them")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Answers with what was recorded: the n-th turn of a conversation gets its n-th reply."""

    path: str
    """JSON lines, each {"task": digest of the first user message's text, "replies": [text, ...]}."""
    knows_protocol: bool = True
    """Whether the recorded model knew the tool language, so that prompts come without its manual."""

    @cached_property
    def _rows(self) -> Mapping[str, Sequence[str]]:
        path = Path(self.path)
        if not path.is_file():
            raise ModelError(f"no recording at {self.path!r}; set model.path to a file of JSON lines")
        rows: dict[str, Sequence[str]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                task, replies = str(row["task"]), [str(text) for text in row["replies"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ModelError(
                    f'{self.path}:{number} is not {{"task": ..., "replies": [...]}} ({error}); record it again'
                ) from error
            if rows.setdefault(task, replies) != replies:
                raise ModelError(f"{self.path}:{number} records other replies for {task} than a line before; drop one")
        return rows

    @property
    def id(self) -> str:
        """Identity: a digest of the recorded replies."""
        return f"replay-{digest_of({key: list(replies) for key, replies in self._rows.items()})[:12]}"

    @property
    def weights(self) -> None:
        """A recording cannot be trained."""
        return None

    def tokens(self, text: str) -> int:
        """Estimate the tokens of a text: four characters each."""
        return -(-len(text) // 4)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Play the next reply of each. Raises ModelError where nothing is recorded."""
        return [self._play(conversation) for conversation in conversations]

    def _play(self, conversation: Conversation) -> Reply:
        key = key_of(conversation.messages)
        turn = sum(message.role == "assistant" for message in conversation.messages)
        replies = self._rows.get(key)
        if replies is None:
            known = ", ".join(sorted(self._rows)[:5]) or "nothing"
            raise ModelError(
                f"conversation {conversation.id!r} (first user message {key}) is not in {self.path}, which holds "
                f"{len(self._rows)} conversations ({known}{', ...' if len(self._rows) > 5 else ''})"
            )
        if turn >= len(replies):
            raise ModelError(
                f"conversation {conversation.id!r} asks for reply {turn + 1}, but {len(replies)} are recorded "
                f"for {key} in {self.path}; record the session to its end"
            )
        prompt = sum(self.tokens(message.content) for message in conversation.messages)
        return Reply(text=replies[turn], prompt_tokens=prompt, completion_tokens=self.tokens(replies[turn]))

    def with_skill(self, skill: Skill) -> Replay:
        """Return itself; raises ModelError for adapters, which a recording cannot take."""
        if skill.adapters:
            raise ModelError(f"a recording cannot take adapters ({skill.adapters[0].path}); choose strategy=none")
        return self

    def forget(self, conversation: str) -> None:
        """Nothing is cached."""
