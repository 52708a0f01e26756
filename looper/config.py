"""The root schema, the run id, and guards against silent mistakes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from looper.build import build, choice, fill
from looper.campaigns.checks import campaigning
from looper.errors import ConfigError
from looper.models.ensemble import Ensemble
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

SECOND = ("synthesizer", "supervisor", "learner")
"""Root nodes that may hold one more model: `+model@synthesizer=NAME` writes examples, `+model@supervisor=NAME` judges
the steps of the sessions that are learned from, `+model@learner=NAME` learns from a campaign's sessions."""

OPTIONAL = ("campaign", "ranking")
"""Root nodes that only research campaigns have: `+campaign=NAME`, and `+ranking=NAME` for the memory's ranking."""

UNSCIENTIFIC = frozenset({"name", "workspace", "trackers", "out", "parallel"})
"""Root keys that do not decide a run's result and so are no part of its id's digest."""


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
    parallel: int = 64
    """Sessions under way at once; changes speed only."""
    out: str = "outputs"
    """Folder that everything is written to."""

    def __post_init__(self) -> None:
        """Refuse values that make no run."""
        for key, low in (("attempts", 1), ("parallel", 1), ("temperature", 0), ("seed", 0)):
            if getattr(self, key) < low:
                raise ValueError(f"{key}={getattr(self, key)} is too small: it must be at least {low}")
        if not self.out.strip():
            raise ValueError("out is empty: give out=FOLDER")
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise ValueError(f"name={self.name!r} must be letters, digits, '-', '_' and '.' only")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A validated configuration: plain settings and built parts."""

    settings: Settings
    placebo: bool
    """Whether the placebo arm is wanted; settled where the settings leave it open."""
    parts: dict[str, Any]
    trackers: dict[str, Any]
    run_id: str
    config: dict[str, Any]
    """The resolved configuration, as plain data."""


def read(config: DictConfig) -> Experiment:
    """Validate a composed configuration and build its parts. Raises ConfigError."""
    try:
        container = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        detail = str(error).split("\n", 1)[0]
        where = error.full_key or "the configuration"
        raise ConfigError(f"{where} cannot be read ({detail}); python -m looper --cfg job shows all keys") from error
    if not isinstance(container, dict):
        raise ConfigError("the configuration is not a mapping")
    plain: dict[str, Any] = {str(k): v for k, v in container.items() if k != "hydra"}
    known = {*PARTS, *OPTIONAL, "trackers", "members", *SECOND, *Settings.__dataclass_fields__}
    for key in plain:
        if key not in known:
            raise ConfigError(f"unknown key {key}; the root has: {', '.join(sorted(known))}")
    settings = fill(Settings, {k: v for k, v in plain.items() if k in Settings.__dataclass_fields__}, "")
    parts = {}
    for part in PARTS:
        node = config.get(part)
        if not isinstance(node, DictConfig):
            raise ConfigError(f"{part} is not set: choose an option with {part}=NAME (python -m looper --help)")
        parts[part] = build(node, part)
    parts |= {part: build(config[part], part) for part in OPTIONAL if config.get(part) is not None}
    members = _several(config, "members")
    if isinstance(parts["model"], Ensemble):
        parts["model"] = parts["model"].of(members)
    elif members:
        raise ConfigError(f"members.{next(iter(members))} is given, but the model is no ensemble: give model=ensemble")
    for part in SECOND:
        if config.get(part) is not None:
            parts[part] = build(config[part], part)
            if isinstance(parts[part], Ensemble):
                raise ConfigError(f"{part} is an ensemble, which has no members there: choose a single model")
    campaigning(parts, plain)
    writer = getattr(parts["data"], "synthesizer", None)
    if writer is not None and writer.value != "rules" and "synthesizer" not in parts:
        raise ConfigError(
            f"data.synthesizer={writer.value} needs a model that writes: give +model@synthesizer=NAME, or "
            "data.synthesizer=rules"
        )
    trackers = _several(config, "trackers")
    there = bool(getattr(parts["benchmark"], "has_placebo", False))
    if settings.placebo and not there:
        raise ConfigError("placebo=true, but the benchmark has no tasks that teach nothing: give placebo=false")
    placebo = there if settings.placebo is None else settings.placebo
    return Experiment(
        settings=settings,
        placebo=placebo,
        parts=parts,
        trackers=trackers,
        run_id=run_id(settings, placebo, parts),
        config=plain,
    )


def _several(config: DictConfig, place: str) -> dict[str, Any]:
    """Build the options below a root node, by name. Raises ConfigError."""
    node = config.get(place)
    if node is None:
        return {}
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{place}={node!r} holds no options by name: choose one with {choice(f'{place}.NAME')}")
    return {name: build(node[name], f"{place}.{name}") for name in map(str, node)}


def run_id(settings: Settings, placebo: bool, parts: dict[str, Any]) -> str:
    """Return name + digest of everything scientific; a pure function of the built values.

    Values, not words: `temperature=1` and `temperature=1.0`, or a switch given by either of its names, are one run.
    """
    science: dict[str, Any] = {k: v for k, v in values_of(settings).items() if k not in UNSCIENTIFIC}
    science |= {"placebo": placebo}
    science |= {name: [type(part).__name__, values_of(part)] for name, part in parts.items() if name != "workspace"}
    return f"{settings.name}-{digest_of(science)[:10]}"


def values_of(part: Any) -> dict[str, Any]:
    """Return a component's values as plain data; those that change speed only are left out where it says so."""
    values = part.decisive() if hasattr(part, "decisive") else dataclasses.asdict(part)
    return {k: _plain(v) for k, v in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
