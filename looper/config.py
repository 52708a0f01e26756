"""The root schema, the run id, and guards against silent mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from looper.build import build, fill
from looper.errors import ConfigError
from looper.records import digest_of

PARTS = (
    "benchmark",
    "curriculum",
    "model",
    "prompt",
    "budget",
    "retrieval",
    "data",
    "strategy",
    "trainer",
    "workspace",
)
"""Root nodes that become one component each."""

UNSCIENTIFIC = frozenset({"workspace", "trackers", "out", "parallel", "hydra"})
"""Root keys that do not decide a run's result and so are no part of its id."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The root's plain values."""

    name: str = "pilot"
    """Name of the run; the first half of its id."""
    seed: int = 1
    """Draws tasks, splits, replies at a temperature, and adapters."""
    attempts: int = 3
    """Tries at each train task."""
    temperature: float = 1.0
    """Temperature of the tries at train tasks; held-out tasks are always tried once, greedily."""
    placebo: bool | None = None
    """Also train and probe an adapter on as many sessions of unlearnable tasks; null: if the benchmark has them."""
    parallel: int = 16
    """Sessions under way at once; changes speed only."""
    out: str = "outputs"
    """Folder that everything is written to."""

    def __post_init__(self) -> None:
        """Refuse values that make no run."""
        for key, low in (("attempts", 1), ("parallel", 1), ("temperature", 0), ("seed", 0)):
            if getattr(self, key) < low:
                raise ValueError(f"{key}={getattr(self, key)} is too small: it must be at least {low}")
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise ValueError(f"name={self.name!r} must be letters, digits, '-', '_' and '.' only")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A validated configuration: plain settings and built parts."""

    settings: Settings
    parts: dict[str, Any]
    trackers: dict[str, Any]
    run_id: str
    config: dict[str, Any]
    """The resolved configuration, as plain data."""


def read(config: DictConfig) -> Experiment:
    """Validate a composed configuration and build its parts. Raises ConfigError."""
    container = OmegaConf.to_container(config, resolve=True)
    if not isinstance(container, dict):
        raise ConfigError("the configuration is not a mapping")
    plain: dict[str, Any] = {str(k): v for k, v in container.items() if k != "hydra"}
    known = {*PARTS, "trackers", *Settings.__dataclass_fields__}
    for key in plain:
        if key not in known:
            raise ConfigError(f"unknown key {key}; the root has: {', '.join(sorted(known))}")
    settings = fill(Settings, {k: v for k, v in plain.items() if k in Settings.__dataclass_fields__}, "config")
    parts = {}
    for part in PARTS:
        node = config.get(part)
        if not isinstance(node, DictConfig):
            raise ConfigError(f"{part} is not set: choose an option with {part}=NAME (python -m looper --help)")
        parts[part] = build(node, part)
    trackers = {str(k): build(v, f"trackers.{k}") for k, v in (config.get("trackers") or {}).items()}
    return Experiment(settings=settings, parts=parts, trackers=trackers, run_id=run_id(plain), config=plain)


def run_id(plain: dict[str, Any]) -> str:
    """Return name + digest of the scientific part of a resolved configuration; a pure function."""
    science = {k: v for k, v in plain.items() if k not in UNSCIENTIFIC and k != "name"}
    return f"{plain.get('name', 'run')}-{digest_of(science)[:10]}"
