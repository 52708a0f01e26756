"""What an adapter can be exported to; without imports, since the command line reads it before it does anything."""

from __future__ import annotations

from enum import Enum


class Target(Enum):
    """Formats of an export."""

    peft = "peft"
    mlx = "mlx"
    gguf = "gguf"
    merged = "merged"


class Precision(Enum):
    """What merged weights are stored in."""

    base = "base"
    float32 = "float32"
