"""What a pretraining may be told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from looper.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Budget and optimiser of a pretraining."""

    tokens: int = 40_000_000
    """Tokens to read, padding not counted."""
    minutes: float = 0.0
    """Wall-clock limit: a pace too slow for it shortens the budget, schedule included. 0 is no limit."""
    batch_tokens: int = 8192
    """Tokens of one optimiser step, padding counted, over all processes."""
    lr: float = 3e-3
    """Peak learning rate of Muon (matrices) and AdamW (embedding, norms, biases)."""
    wd: float = 0.02
    """Decoupled weight decay of matrices and embedding."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    decay: float = 0.5
    """Last share of the budget over which the learning rate falls to 0, linearly."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    bf16: bool | None = None
    """Multiply in bfloat16; None asks the processor whether it can."""
    start: str = ""
    """Folder of a model to go on from instead of random weights; its sizes must be the same."""
    seed: int = 0
    """Seed of the initial weights and of the order of reading."""
    processes: int = 2
    """Data-parallel processes of one thread each."""
    held_out: int = 400
    """Last sequences of the corpus, kept for the validation loss."""
    report_every: int = 100
    """Steps between two lines of progress."""
    validate_every: int = 500
    """Steps between two validations."""
    checkpoint_minutes: float = 3.0
    """Minutes between two checkpoints."""

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_tokens", "processes", "report_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not positive; choose 1 or more")
        if not 0.0 <= self.decay <= 1.0:
            raise ConfigError(f"decay={self.decay} is no share; choose a value between 0 and 1")

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate's factor at a step, `progress` of the budget read before it."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (1.0 - progress) / self.decay) if self.decay else 1.0
        return min(rise, max(0.0, fall))


def parse(kind: type[Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` words into the fields of a flat dataclass.

    Raises ConfigError for an unknown key or a bad value.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in known or not text:
            raise ConfigError(f"unknown setting {pair!r}; write key=value with one of {', '.join(known)}")
        values[key] = _value(key, text, str(known[key].type))
    return values


def _value(key: str, text: str, kind: str) -> int | float | bool | str | None:
    if kind == "str":
        return text
    words: dict[str, bool | None] = {"true": True, "false": False, "none": None}
    if "bool" in kind:
        if text.lower() not in words:
            raise ConfigError(f"{key}={text} is not a switch; choose true, false or none")
        return words[text.lower()]
    try:
        return int(text.replace("_", "")) if kind == "int" else float(text)
    except ValueError as error:
        raise ConfigError(f"{key}={text} is not a number ({kind}); write for example {key}=1000") from error
