"""A causal language model in Hugging Face's format, run in this process by transformers, with adapters by PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from looper.errors import ConfigError, MachineError
from looper.models.folder import template_of
from looper.models.local_model import Dtype, LocalModel

if TYPE_CHECKING:
    from looper.models.hf_engine import Engine


class Device(Enum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


@dataclass(frozen=True, kw_only=True)
class HuggingFace(LocalModel):
    """Any causal model of transformers with full attention and a fast tokenizer.

    Prompts are computed one conversation at a time, and replies are decoded in rows of one fixed width, each row with
    a random stream of its own (`Conversation.seed`). So company never changes what is drawn, nor the shape of a
    matrix product; it does change how far the attention's padding reaches, and a processor may then add in another
    order. Two equally likely tokens can change places by that, as they can between processors: replies are
    independent of company up to rounding, and bit for bit equal in equal company. Only temperature shapes what is
    drawn: the top-p, top-k and penalties that a model's files may suggest are not used.
    """

    device: Device = Device.auto
    """auto is cuda where there is one, else mps, else cpu."""
    dtype: Dtype = Dtype.auto
    """auto is bfloat16 on a GPU that multiplies it, else float32."""
    four_bit: bool = False
    """Keep the weights in 4 bits (NF4, by bitsandbytes); CUDA only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.four_bit and self.device in (Device.cpu, Device.mps):
            raise ConfigError(f"model.four_bit=true needs model.device=cuda, not {self.device.value}; set it to false")

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

    @property
    def id(self) -> str:
        """Identity: the weights' digest, the device and the precision."""
        device, dtype = self.placed
        return f"{self.base}/{device}-{'nf4-' if self.four_bit else ''}{dtype}"

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
