"""A causal language model in Hugging Face's format, run in this process by transformers, with adapters by PEFT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.errors import ConfigError, MachineError, ModelError
from looper.lora_files import CONFIG, PLAIN_BEGINNINGS, WEIGHTS
from looper.models.folder import base_of, files_of, template_of
from looper.protocols import Form
from looper.records import Adapter, Conversation, Reply, Skill

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from looper.models.hf_engine import Engine

PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt")
"""What is taken from a hub: no code, no other formats of the weights."""


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
        found = _fetched(self.name, self.revision)
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


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A model under the exact sum of some adapters: W x + sum_i scale_i B_i A_i x, with the base's weights shared."""

    model: HuggingFace
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


def _fetched(name: str, revision: str) -> Path:
    """Return the folder of a hub's model in the local cache, fetched if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {"repo_id": name, "revision": revision, "allow_patterns": list(PATTERNS)}
    try:
        there = Path(snapshot_download(**wanted, local_files_only=True))
        files_of(there)
        return there
    except (LocalEntryNotFoundError, ModelError):  # nothing in the cache, or what an interrupted fetch left
        pass
    except HFValidationError as error:
        raise ModelError(
            f"model.name={name!r} is neither a folder nor a hub's name ({error}); give one of them"
        ) from error
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:  # the hub's client lets the errors of several libraries through
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise ModelError(
            f"model.name={name!r} (revision {revision}) is no folder, is not in the hub's cache, and could not be "
            f"fetched ({reason}); check the name and the connection, or give a folder that holds the model"
        ) from error


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
