"""A causal language model run in this process by mlx-lm, Apple's array library, with sums of adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from looper.errors import MachineError
from looper.models.folder import template_of
from looper.models.local_model import Dtype, LocalModel

if TYPE_CHECKING:
    from looper.models.mlx_engine import MlxEngine


@dataclass(frozen=True, kw_only=True)
class Mlx(LocalModel):
    """Any causal model of mlx-lm with full attention, its weights as Hugging Face or mlx-lm keeps them.

    For Macs, where MLX uses the graphics; on Linux it runs on the CPU, and `hf` is faster. Weights that mlx-lm
    quantised stay so, and adapters are added beside them, not merged into them. Draws and company are as with `hf`:
    the same seed draws the same reply, whoever is answered beside it, up to rounding.
    """

    dtype: Dtype = Dtype.auto
    """auto is bfloat16 on Apple's graphics, else float32; of quantised weights, what is not quantised."""
    width: int = 4
    """Replies decoded together. Always the whole width is computed: choose it near the sessions run at once."""

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

    @property
    def id(self) -> str:
        """Identity: the weights' digest, the library, the device and the precision."""
        device, dtype = self.placed
        return f"{self.base}/mlx-{device}-{dtype}"
