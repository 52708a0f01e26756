"""A second model's errors name the place in the configuration that it was chosen at, where they would say `model`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looper.errors import LooperError
from looper.protocols import Checked, Model, Resident
from looper.records import Conversation, Reply, Skill


def at_place(text: str, keys: Iterable[str], place: str) -> str:
    """Return an error's text with each `model.KEY` of the given keys turned into `place.KEY`."""
    known = "|".join(map(re.escape, keys))
    return re.sub(rf"(?<![\w./-])model\.(?=(?:{known})\b)", f"{place}.", text) if known else text


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A model that was chosen at another place than `model`: `synthesizer`, `supervisor`, `members.a`.

    It answers as the model does. An error keeps its kind and gets the place into its text: that is where its user has
    to change something.
    """

    model: Model
    place: str

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except LooperError as error:
            part: Any = self.model
            keys = [field.name for field in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
            raise type(error)(f"in {self.place}: {at_place(str(error), keys, self.place)}") from error

    @property
    def id(self) -> str:
        """The model's identity."""
        with self._told():
            return self.model.id

    @property
    def knows_protocol(self) -> bool:
        """Whether the model needs no manual."""
        return self.model.knows_protocol

    @property
    def weights(self) -> Path | None:
        """The model's trainable weights."""
        with self._told():
            return self.model.weights

    def tokens(self, text: str) -> int:
        """Count a text's tokens."""
        with self._told():
            return self.model.tokens(text)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch."""
        with self._told():
            return self.model.reply(conversations)

    def with_skill(self, skill: Skill) -> Placed:
        """Return the model with a skill, at the same place."""
        with self._told():
            return Placed(model=self.model.with_skill(skill), place=self.place)

    def check(self) -> None:
        """Raise ConfigError for what the model lacks to answer, where it can tell."""
        if isinstance(self.model, Checked):
            with self._told():
                self.model.check()

    def release(self) -> None:
        """Give back what the model holds of a graphics card."""
        if isinstance(self.model, Resident):
            self.model.release()

    def forget(self, conversation: str) -> None:
        """Free what the model holds of a session."""
        self.model.forget(conversation)
