"""A causal language model on disk or at the hub whose replies are computed in this process, with sums of adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from looper.errors import ConfigError
from looper.models.folder import base_of, files_of
from looper.models.hub import fetched
from looper.models.summed import Adapted, Answering
from looper.protocols import Form
from looper.records import Conversation, Reply, Skill

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Dtype(Enum):
    """What the weights are kept and multiplied in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True, kw_only=True)
class LocalModel(ABC):
    """What models in this process share, whichever library computes; only the engine and its device differ."""

    name: str = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    """Folder, or name at the hub; from there it is fetched once, unless it is in the hub's cache."""
    revision: str = "main"
    """Branch, tag or commit at the hub; not used for a folder."""
    width: int = 16
    """Replies decoded together. Always the whole width is computed: choose it near the sessions run at once."""
    cache: int = 16
    """Conversations whose computed prompts are kept from turn to turn; 0 keeps none. They cost memory, save time."""
    knows_protocol: bool = False
    """Whether the model was trained on the tool language and needs no manual."""

    def __post_init__(self) -> None:
        for key, low in (("width", 1), ("cache", 0)):
            if getattr(self, key) < low:
                raise ConfigError(f"model.{key}={getattr(self, key)} is too small; choose {low} or more")
        if not self.name:
            raise ConfigError("model.name is empty; give a folder with a model, or its name at the hub")

    @property
    @abstractmethod
    def id(self) -> str:
        """Identity of all that decides a reply."""

    @property
    @abstractmethod
    def engine(self) -> Answering:
        """The model, loaded when it is first asked; adapters come and go on the same weights."""

    @cached_property
    def weights(self) -> Path:
        """Folder of the weights, fetched from the hub if need be. Raises ModelError where it cannot be had."""
        folder = Path(self.name).expanduser()
        found = folder.resolve() if folder.is_dir() else fetched(self.name, self.revision)
        files_of(found)
        return found

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's own tokenizer.

        It is read as it stands, as in training: transformers' AutoTokenizer replaces parts of some.
        """
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.weights / "tokenizer.json"))

    @property
    def base(self) -> str:
        """Identity of the weights alone: what an adapter's base begins with."""
        return base_of(self.weights)

    @property
    def forms(self) -> frozenset[Form]:
        """Adapters are summed."""
        return frozenset({Form.single, Form.stack})

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch. Raises ContextOverflow for a prompt that fills the context."""
        return self.engine.reply(conversations, ())

    def with_skill(self, skill: Skill) -> Self | Adapted:
        """Return the model with the sum of the skill's adapters; itself if there are none.

        Raises ModelError for an adapter of another base, and for a mixture.
        """
        return Adapted(model=self, adapters=()).with_skill(skill) if skill.adapters else self

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        if "engine" in self.__dict__:  # nothing to free before the first reply
            self.engine.forget(conversation)
