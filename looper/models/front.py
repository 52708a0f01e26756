"""What stands in front of a model and answers for it: all but the replies is the model's own."""

from __future__ import annotations

from pathlib import Path

from looper.protocols import Model
from looper.records import Skill


class Front:
    """A model in front of another one; who inherits adds `reply`."""

    def __init__(self, model: Model) -> None:
        """Stand in front of a model."""
        self._model = model

    @property
    def id(self) -> str:
        """The model's identity."""
        return self._model.id

    @property
    def knows_protocol(self) -> bool:
        """Whether the model needs no manual."""
        return self._model.knows_protocol

    @property
    def weights(self) -> Path | None:
        """The model's trainable weights."""
        return self._model.weights

    def tokens(self, text: str) -> int:
        """Count a text's tokens."""
        return self._model.tokens(text)

    def with_skill(self, skill: Skill) -> Model:
        """Return the bare model with a skill applied."""
        return self._model.with_skill(skill)

    def forget(self, conversation: str) -> None:
        """Free what the model holds of a conversation."""
        self._model.forget(conversation)
