"""The bundled model as an option: weights from a folder, adapters merged in, engine started on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from looper.errors import ConfigError, ModelError
from looper.models.nano.tokenizer import load_tokenizer
from looper.protocols import Form
from looper.records import Adapter, Conversation, Reply, Router, Skill

if TYPE_CHECKING:
    from looper.models.nano.engine import Engine

PACKED = Path(__file__).parent / "weights"
"""The weights that come with the package."""
NAME = "looper-nano"
"""What the bundled model is called where its folder would say nothing, as on an exported adapter's card."""
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What a folder must hold."""


@dataclass(frozen=True, kw_only=True)
class Nano:
    """The bundled Qwen2 of 2.6 million weights, on the CPU, in fp32, on one thread.

    It knows the tool language and repairs small Python repositories; it is made for measuring, not for
    work. Any folder with a small tied Qwen2 and a tokenizer of the same kind (`looper pretrain` makes
    such) serves as well. A reply is a pure function of its conversation, bit for bit, on one machine
    and one version of torch.
    """

    path: str = ""
    """Folder with the model; empty takes the weights that come with looper."""
    width: int = 16
    """Replies decoded together. Always the whole width is computed: choose it near the sessions run at once."""
    scale: float = 1.0
    """Factor on what adapters add to the weights, at inference alone; 0 is the base model, 1 the adapter as trained."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width={self.width} is not possible; choose 1 or more, 16 suits one core")
        if not 0.0 <= self.scale <= 10.0:
            raise ConfigError(
                f"scale={self.scale} is no factor for adapters; choose from 0 (none of it) to 10, often 1"
            )

    @cached_property
    def _running(self) -> Merged:
        return Merged(folder=self.weights, width=self.width, scale=self.scale)

    @property
    def weights(self) -> Path:
        """Folder with the model's files, which adapters are trained on. Raises ModelError if one is missing."""
        folder = Path(self.path).expanduser().resolve() if self.path else PACKED
        for name in FILES:
            if not (folder / name).is_file():
                raise ModelError(
                    f"{folder / name} is missing; make the model with `looper pretrain`, "
                    "or give the folder of another small Qwen2 as model.path"
                )
        return folder

    @property
    def id(self) -> str:
        """Identity: a digest of weights, config and tokenizer."""
        return self._running.id

    @property
    def knows_protocol(self) -> bool:
        """The model was trained on the tool language."""
        return True

    @property
    def forms(self) -> frozenset[Form]:
        """Adapters of any form; a mixture at their own scale only."""
        return frozenset(Form) if self.scale == 1.0 else frozenset({Form.single, Form.stack})

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return self._running.tokens(text)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch. Raises ModelError for a prompt that fills the context."""
        return self._running.reply(conversations)

    def with_skill(self, skill: Skill) -> Nano | Merged:
        """Return the model with the skill's adapters merged; itself if there are none."""
        return self._running.with_skill(skill) if skill.adapters else self

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        self._running.forget(conversation)


class Merged:
    """A model at work: a folder's weights with adapters added to them, or weighed by a router session by session."""

    def __init__(
        self,
        *,
        folder: Path,
        width: int,
        scale: float = 1.0,
        adapters: tuple[Adapter, ...] = (),
        router: Router | None = None,
    ) -> None:
        self._folder = folder
        self._width = width
        self._scale = scale
        self._adapters = adapters
        self._router = router

    @cached_property
    def _engine(self) -> Engine:
        from looper.models.nano import weights
        from looper.models.nano.engine import Engine

        shape, tensors = weights.read(self._folder)
        folders = [Path(adapter.path) for adapter in self._adapters]
        mixture = None
        if self._router is None:
            weights.merge(tensors, folders, scale=self._scale)
        else:
            from looper.models.nano.mixture import Mixture

            mixture = Mixture(shape, tensors, folders, Path(self._router.path))
        tokenizer = load_tokenizer(self._folder)
        return Engine(weights.arrange(shape, tensors), tokenizer, width=self._width, mixture=mixture)

    @property
    def weights(self) -> Path:
        """Folder that adapters are trained on."""
        return self._folder

    @property
    def base(self) -> str:
        """Identity without adapters: what an adapter names as its base."""
        return f"nano-{_digest(self._folder, _stamps(self._folder))}"

    @property
    def id(self) -> str:
        """Identity: the base's, and the digests of each adapter and the router."""
        router = [self._router.digest] if self._router else []
        scale = [f"x{self._scale!r}"] if self._adapters and self._scale != 1.0 else []
        return "+".join([self.base, *(adapter.digest for adapter in self._adapters), *router, *scale])

    @property
    def knows_protocol(self) -> bool:
        """The model was trained on the tool language."""
        return True

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(load_tokenizer(self._folder).encode(text, add_special_tokens=False).ids)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Answer a batch. Raises ModelError for a prompt that fills the context."""
        return self._engine.reply(conversations)

    def with_skill(self, skill: Skill) -> Merged:
        """Return this model with more adapters added, or with the experts of a mixture; itself if there are none."""
        for adapter in skill.adapters:
            if adapter.base != self.base:
                raise ModelError(
                    f"adapter {adapter.path} was trained on {adapter.base}, but this model is {self.base}; "
                    "use the model that it was trained on, or train it anew"
                )
        if not skill.adapters:
            return self
        if self._router or (skill.router and self._adapters):
            raise ModelError("adapters cannot be added to a mixture, nor a mixture to adapters; give one skill")
        if skill.router and self._scale != 1.0:
            raise ModelError(f"model.scale={self._scale} is for plain adapters, not for a mixture; give model.scale=1")
        return Merged(
            folder=self._folder,
            width=self._width,
            scale=self._scale,
            adapters=(*self._adapters, *skill.adapters),
            router=skill.router,
        )

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        if "_engine" in self.__dict__:  # nothing to free before the first reply
            self._engine.forget(conversation)


def _stamps(folder: Path) -> tuple[tuple[int, int], ...]:
    stats = [(folder / name).stat() for name in FILES]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


@lru_cache(maxsize=32)
def _digest(folder: Path, _stamps: tuple[tuple[int, int], ...]) -> str:
    """Digest of a folder's files, computed again only when one of them changed."""
    whole = hashlib.sha256()
    for name in FILES:
        whole.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return whole.hexdigest()[:12]
