"""A causal language model run in this process by mlx-lm, Apple's array library, with sums of adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from looper.errors import ConfigError, MachineError
from looper.models.folder import base_of, files_of, template_of
from looper.models.hub import fetched
from looper.models.hugging_face import Dtype
from looper.models.summed import Adapted
from looper.protocols import Form
from looper.records import Conversation, Reply, Skill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from looper.models.mlx_engine import MlxEngine


@dataclass(frozen=True, kw_only=True)
class Mlx:
    """Any causal model of mlx-lm with full attention, its weights as Hugging Face or mlx-lm keeps them.

    For Macs, where MLX uses the graphics; on Linux it runs on the CPU, and `hf` is faster. Weights that mlx-lm
    quantised stay so, and adapters are added beside them, not merged into them. Draws and company are as with `hf`:
    the same seed draws the same reply, whoever is answered beside it, up to rounding.
    """

    name: str = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    """Folder, or name at the hub; from there it is fetched once, unless it is in the hub's cache."""
    revision: str = "main"
    """Branch, tag or commit at the hub; not used for a folder."""
    dtype: Dtype = Dtype.auto
    """auto is bfloat16 on Apple's graphics, else float32; of quantised weights, what is not quantised."""
    width: int = 4
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

    def check(self) -> None:
        """Raise MachineError without the library."""
        _ = self.placed

    @cached_property
    def placed(self) -> tuple[str, str]:
        """Device and dtype in force. Raises MachineError without the library."""
        try:
            if find_spec("mlx_lm") is None:
                raise ImportError("No module named 'mlx_lm'")
            import mlx.core as mx
        except ImportError as error:
            raise MachineError(
                f"model=mlx needs the library ({error}): pip install 'looper[mlx]', or give model=hf"
            ) from error
        device = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
        if self.dtype is not Dtype.auto:
            return device, self.dtype.value
        return device, "bfloat16" if mx.metal.is_available() else "float32"

    @cached_property
    def weights(self) -> Path:
        """Folder of the weights, fetched from the hub if need be. Raises ModelError where it cannot be had."""
        folder = Path(self.name).expanduser()
        found = folder.resolve() if folder.is_dir() else fetched(self.name, self.revision)
        files_of(found)
        return found

    @cached_property
    def engine(self) -> MlxEngine:
        """The model, loaded when it is first asked; adapters come and go on the same weights."""
        _, dtype = self.placed
        from looper.models.mlx_engine import MlxEngine

        return MlxEngine(
            self.weights,
            self.tokenizer,
            template=template_of(self.weights),
            dtype=dtype,
            width=self.width,
            cache=self.cache,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's own tokenizer, read as it stands, as in training."""
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.weights / "tokenizer.json"))

    @property
    def base(self) -> str:
        """Identity of the weights alone: what an adapter's base begins with."""
        return base_of(self.weights)

    @property
    def id(self) -> str:
        """Identity: the weights' digest, the library, the device and the precision."""
        device, dtype = self.placed
        return f"{self.base}/mlx-{device}-{dtype}"

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

    def with_skill(self, skill: Skill) -> Mlx | Adapted:
        """Return the model with the sum of the skill's adapters; itself if there are none.

        Raises ModelError for an adapter of another base, and for a mixture.
        """
        return Adapted(model=self, adapters=()).with_skill(skill) if skill.adapters else self

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        if "engine" in self.__dict__:  # nothing to free before the first reply
            self.engine.forget(conversation)
