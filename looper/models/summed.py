"""A model in this process under the exact sum of some adapters, its weights shared; who runs it does not matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from looper.errors import ModelError
from looper.lora_files import CONFIG, PLAIN_BEGINNINGS, WEIGHTS
from looper.records import Adapter, Conversation, Reply, Skill


class Answering(Protocol):
    """What computes replies under a sum of adapters."""

    def reply(self, conversations: Sequence[Conversation], adapters: tuple[Adapter, ...]) -> list[Reply]:
        """Answer a batch."""
        ...

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        ...


class Base(Protocol):
    """A model that holds its weights once, for all that adapts it."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def id(self) -> str:
        """The model's identity."""
        ...

    @property
    def base(self) -> str:
        """Identity of the weights alone: what an adapter's base begins with."""
        ...

    @property
    def weights(self) -> Path:
        """Folder that adapters are trained on."""
        ...

    @property
    def knows_protocol(self) -> bool:
        """Whether the model needs no manual."""
        ...

    @property
    def engine(self) -> Answering:
        """What computes."""
        ...

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        ...

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        ...


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A model under the exact sum of some adapters: W x + sum_i scale_i B_i A_i x, with the base's weights shared."""

    model: Base
    adapters: tuple[Adapter, ...]

    def checked(self) -> Adapted:
        """Return itself. Raises ModelError for an adapter of another base, or one that is no sum of matrices."""
        base = self.model.base
        if len({adapter.digest for adapter in self.adapters}) < len(self.adapters):
            paths = ", ".join(adapter.path for adapter in self.adapters)
            raise ModelError(f"an adapter is there twice ({paths}); a sum takes each of them once")
        for adapter in self.adapters:
            if adapter.base.partition("/")[0] != base:
                raise ModelError(
                    f"adapter {adapter.path} was trained on {adapter.base}, but this model is {self.model.id}; "
                    "use the model that it was trained on, or train it anew"
                )
            _check_sum(Path(adapter.path))
        return self

    @property
    def id(self) -> str:
        """Identity: the base's, and the digest of each adapter."""
        return "+".join([self.model.id, *(adapter.digest for adapter in self.adapters)])

    @property
    def knows_protocol(self) -> bool:
        """As the base."""
        return self.model.knows_protocol

    @property
    def weights(self) -> Path:
        """Folder that adapters are trained on."""
        return self.model.weights

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return self.model.tokens(text)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch. Raises ContextOverflow for a prompt that fills the context."""
        return self.model.engine.reply(conversations, self.adapters)

    def with_skill(self, skill: Skill) -> Adapted:
        """Return this model with more adapters added; itself if there are none."""
        if not skill.adapters:
            return self
        if skill.router:
            raise ModelError(
                f"{self.model.name} sums adapters and cannot weigh them by session ({skill.router.path}); choose "
                "model=nano for a mixture, or another strategy than mole"
            )
        return Adapted(model=self.model, adapters=(*self.adapters, *skill.adapters)).checked()

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        self.model.forget(conversation)


def _check_sum(folder: Path) -> None:
    """Raise ModelError unless a folder holds an adapter that adds B A to the weights and changes nothing else.

    Others would not sum, or would leave their mark on the base: trained biases, and beginnings such as PiSSA's, which
    take a part out of the weights, stay there when the adapter is switched off.
    """
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no adapter in PEFT's format; train it again")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} has no readable adapter_config.json ({error}); train it again") from error
    harmless: dict[str, tuple[Any, ...]] = {
        "use_dora": (False, None),
        "modules_to_save": (None, []),
        "bias": ("none", None),
        "init_lora_weights": PLAIN_BEGINNINGS,
    }
    for key, values in harmless.items():
        if config.get(key) not in values:
            raise ModelError(f"adapter {folder} has {key}={config[key]!r}; only plain LoRA can be summed")
