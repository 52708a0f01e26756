"""A causal language model in Hugging Face's format, run in this process by transformers, with adapters by PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from looper.errors import ConfigError, MachineError
from looper.models.folder import base_of, files_of, template_of
from looper.models.hub import fetched
from looper.models.summed import Adapted
from looper.protocols import Form
from looper.records import Conversation, Reply, Skill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from looper.models.hf_engine import Engine


class Device(Enum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Dtype(Enum):
    """What the weights are kept and multiplied in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """Any causal model of transformers with full attention and a fast tokenizer.

    Prompts are computed one conversation at a time, and replies are decoded in rows of one fixed width, each row with
    a random stream of its own (`Conversation.seed`). So company never changes what is drawn, nor the shape of a
    matrix product; it does change how far the attention's padding reaches, and a processor may then add in another
    order. Two equally likely tokens can change places by that, as they can between processors: replies are
    independent of company up to rounding, and bit for bit equal in equal company. Only temperature shapes what is
    drawn: the top-p, top-k and penalties that a model's files may suggest are not used.
    """

    name: str = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    """Folder, or name at the hub; from there it is fetched once, unless it is in the hub's cache."""
    revision: str = "main"
    """Branch, tag or commit at the hub; not used for a folder."""
    device: Device = Device.auto
    """auto is cuda where there is one, else mps, else cpu."""
    dtype: Dtype = Dtype.auto
    """auto is bfloat16 on a GPU that multiplies it, else float32."""
    four_bit: bool = False
    """Keep the weights in 4 bits (NF4, by bitsandbytes); CUDA only."""
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
        if self.four_bit and self.device in (Device.cpu, Device.mps):
            raise ConfigError(f"model.four_bit=true needs model.device=cuda, not {self.device.value}; set it to false")

    @cached_property
    def weights(self) -> Path:
        """Folder of the weights, fetched from the hub if need be. Raises ModelError where it cannot be had."""
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            files_of(folder)
            return folder.resolve()
        found = fetched(self.name, self.revision)
        files_of(found)
        return found

    @cached_property
    def placed(self) -> tuple[str, str]:
        """Device and dtype in force. Raises MachineError for a device that this machine lacks."""
        return _placed(self.device, self.dtype, self.four_bit)

    @cached_property
    def engine(self) -> Engine:
        """The model, loaded when it is first asked; adapters come and go on the same weights."""
        from looper.models.hf_engine import Engine

        device, dtype = self.placed
        return Engine(
            self.weights,
            self.tokenizer,
            template=template_of(self.weights),
            device=device,
            dtype=dtype,
            four_bit=self.four_bit,
            width=self.width,
            cache=self.cache,
        )

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
    def id(self) -> str:
        """Identity: the weights' digest, the device and the precision."""
        device, dtype = self.placed
        return f"{self.base}/{device}-{'nf4-' if self.four_bit else ''}{dtype}"

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

    def with_skill(self, skill: Skill) -> HuggingFace | Adapted:
        """Return the model with the sum of the skill's adapters; itself if there are none.

        Raises ModelError for an adapter of another base, and for a mixture.
        """
        return Adapted(model=self, adapters=()).with_skill(skill) if skill.adapters else self

    def forget(self, conversation: str) -> None:
        """Free what is cached for a finished session."""
        if "engine" in self.__dict__:  # nothing to free before the first reply
            self.engine.forget(conversation)

    def release(self) -> None:
        """Give a graphics card's memory back, as before a training; the next reply loads the weights again.

        Nothing happens on a CPU, nor where no reply was asked for yet.
        """
        if "engine" in self.__dict__ and self.placed[0] != "cpu":
            self._unload()

    def _unload(self) -> None:
        import gc

        import torch

        del self.__dict__["engine"]
        gc.collect()
        if self.placed[0] == "cuda":
            torch.cuda.empty_cache()
        elif self.placed[0] == "mps":
            torch.mps.empty_cache()


def _placed(device: Device, dtype: Dtype, four_bit: bool) -> tuple[str, str]:
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    wanted = device.value if device is not Device.auto else next(name for name, has in there.items() if has)
    if not there[wanted]:
        has = ", ".join(name for name, has in there.items() if has)
        raise MachineError(
            f"model.device={wanted} is not on this machine, which has {has}; choose one of them, or auto"
        )
    if four_bit and wanted != "cuda":
        raise MachineError(
            f"model.four_bit=true needs a CUDA device, and this model would run on {wanted}; set it to false, "
            "or a smaller model"
        )
    if dtype is not Dtype.auto:
        return wanted, dtype.value
    return wanted, "bfloat16" if wanted == "cuda" and torch.cuda.is_bf16_supported() else "float32"
