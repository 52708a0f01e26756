"""A plain LoRA adapter in memory: what all formats hold, and nothing that only one of them knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from looper.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor

LAYER = re.compile(r"(.*\blayers)\.(\d+)\.(.+)")
"""Prefix, number and inner path of a module of a transformer block."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """W x + scale * B (A x) on some linear layers."""

    rank: int
    scale: float
    """What B A is multiplied with: alpha / rank, or alpha / sqrt(rank) where the adapter was rank-stabilised."""
    factors: Mapping[str, tuple[Tensor, Tensor]]
    """Module of the model, such as `model.layers.0.mlp.up_proj` -> A (r, in) and B (out, r)."""
    dropout: float = 0.0
    """Dropout of training; plays no part afterwards."""
    base: str = ""
    """Base model as the adapter's own file names it."""

    def __post_init__(self) -> None:
        """Check the shapes. Raises TrainingError."""
        if not self.factors:
            raise TrainingError("the adapter has no LoRA matrices: there is nothing to convert")
        for name, (a, b) in self.factors.items():
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != self.rank or b.shape[1] != self.rank:
                raise TrainingError(
                    f"{name} has A {tuple(a.shape)} and B {tuple(b.shape)}, which is not rank {self.rank} as the "
                    "adapter's configuration says; write the adapter anew with one rank for all layers"
                )

    @property
    def alpha(self) -> float:
        """Numerator of the scale over the rank: a whole number wherever it was one."""
        exact = self.scale * self.rank
        near = round(exact)
        return float(near) if near and abs(exact - near) <= 1e-9 * near else exact

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the transformer blocks that are adapted."""
        found = {int(match[2]) for name in self.factors if (match := LAYER.fullmatch(name))}
        return tuple(sorted(found))

    def inner_paths(self, into: str) -> tuple[str, ...]:
        """Return the paths of adapted modules inside a block, such as `mlp.up_proj`.

        Raises TrainingError for a module outside of the blocks, which the format `into` cannot hold.
        """
        paths = set()
        for name in self.factors:
            match = LAYER.fullmatch(name)
            if match is None:
                raise TrainingError(f"{name} is in no transformer block, which {into} cannot hold; train without it")
            paths.add(match[3])
        return tuple(sorted(paths))
