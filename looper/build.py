"""A YAML node becomes a validated component: types, unknown keys and ranges are checked before it is made."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
from enum import Enum
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from looper.errors import ConfigError
from looper.models.placed import at_place

T = TypeVar("T")


def build(node: Any, where: str) -> Any:
    """Make the component that a node's `_target_` names; `where` is the node's place, for errors.

    Raises ConfigError naming the key, the value, what is allowed, and the file to look into.
    """
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{where}={node!r} is no option's values: choose an option with {choice(where)}")
    target = node.get("_target_")
    if not isinstance(target, str):
        raise ConfigError(f"{where} has no _target_: choose an option with {choice(where)} (python -m looper --help)")
    cls = _class(target, where)
    plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    assert isinstance(plain, dict)
    values = {str(k): v for k, v in plain.items() if k != "_target_"}
    return fill(cls, values, where)


def choice(where: str) -> str:
    """Return the words that choose an option for a place in the configuration."""
    place, _, name = where.partition(".")
    if place == "trackers":
        return f"+tracker@{where}={name or 'NAME'}"
    if place in ("campaign", "ranking"):
        return f"+{where}=NAME"
    return f"+model@{where}=NAME" if place in ("members", "synthesizer", "supervisor") else f"{where}=NAME"


def fill(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Make a dataclass from plain values, strictly; `where` is empty for the root's own. Raises ConfigError."""
    within = f"{where}." if where else ""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(f"unknown key {within}{key}{_suggest(key, names)}; it has: {', '.join(names)}")
    schema = OmegaConf.structured(cls)
    kinds = get_type_hints(cls)
    for key, given in values.items():
        if isinstance(given, float) and not math.isfinite(given):
            raise ConfigError(f"{within}{key}={given} is no finite number: give one")
        value = _named(kinds[key], given)
        try:
            schema = OmegaConf.merge(schema, {key: value})
        except OmegaConfBaseException as error:
            raise ConfigError(_bad_value(cls, key, value, within, error)) from error
    missing = [key for key in names if OmegaConf.is_missing(schema, key)]
    if missing:
        raise ConfigError(f"{within}{missing[0]} has no value: give {within}{missing[0]}=VALUE")
    try:
        made = OmegaConf.to_object(schema)
    except (ValueError, TypeError, ConfigError) as error:
        text = at_place(str(error), names, where) if where else str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from error
    if not isinstance(made, cls):
        raise ConfigError(f"{where} did not become a {cls.__name__}")
    return made


def _class(target: str, where: str) -> type[Any]:
    module, _, name = target.rpartition(".")
    if not module.startswith("looper."):
        raise ConfigError(f"{where}._target_={target!r} is outside of looper; only looper.* components are made")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}._target_={target!r} does not exist ({error})") from error
    if not dataclasses.is_dataclass(cls) or not isinstance(cls, type):
        raise ConfigError(f"{where}._target_={target!r} is no component (a dataclass)")
    return cls


def _named(kind: Any, value: Any) -> Any:
    """Return the names that OmegaConf wants for enum members given by value, in lists too."""
    if isinstance(value, list):
        inner = get_args(kind)
        return [_named(inner[0], item) for item in value] if inner else value
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, str):
        return next((member.name for member in kind if value in (member.value, member.name)), value)
    return value


def _bad_value(cls: type[Any], key: str, value: Any, within: str, error: Exception) -> str:
    kind = get_type_hints(cls).get(key)
    if isinstance(kind, type) and issubclass(kind, Enum):
        allowed = [str(member.value) for member in kind]
        return f"{within}{key}={value!r} is unknown{_suggest(str(value), allowed)}; choose one of {', '.join(allowed)}"
    inner = next(iter(get_args(kind)), None)
    if isinstance(inner, type) and issubclass(inner, Enum) and isinstance(value, list):
        allowed = [str(member.value) for member in inner]
        odd = next((word for word in value if word not in inner.__members__), value)
        return f"{within}{key} holds {odd!r}{_suggest(str(odd), allowed)}; choose from {', '.join(allowed)}"
    name = getattr(kind, "__name__", str(kind))
    detail = str(error).split("\n", 1)[0]
    return f"{within}{key}={value!r} does not fit: it takes {name} ({detail})"


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
