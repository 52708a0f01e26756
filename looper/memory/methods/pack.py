"""The method pack: one YAML file a method, checked when it is read.

A source without a version in its id (`arxiv:2305.13245`) is one of which no figure is quoted. Claims are other people's
results at other scales; what the recipes do here stands in experiments/method_pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from looper.errors import ConfigError
from looper.memory.predicates import check
from looper.memory.rows import Claim, Method

PACK = Path(__file__).parent / "pack"
"""The methods that come with looper."""


def load(folder: Path = PACK) -> tuple[Method, ...]:
    """Read all methods of a folder, in the order of their ids; every other method that one names has to be among them.

    Raises ConfigError: a file cannot be read or a field is wrong; names both.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ConfigError(f"no methods: {folder} has no *.yaml; each holds one method, see {PACK}")
    methods = tuple(read(path) for path in paths)
    known = {method.id for method in methods}
    for method in methods:
        for field, others in (("couples_with", method.couples_with), ("contraindications", method.contraindications)):
            for other in others:
                if " " not in other and (other not in known or other == method.id):
                    raise ConfigError(
                        f"{folder / method.id}.yaml: {field}: unknown method {other!r}; "
                        f"choose from {', '.join(sorted(known - {method.id}))}"
                    )
    return methods


def read(path: Path) -> Method:
    """Read one method. Raises ConfigError naming the file and the field."""
    method = _validated(path, _fields(path))
    if method.id != path.stem:
        raise ConfigError(f"{path}: id: {method.id!r} has to be the file's name, {path.stem!r}")
    if not method.sources:
        raise ConfigError(f"{path}: sources: there is none; name at least one paper or repository, with its version")
    for number, edit in enumerate(method.recipe):
        if set(edit) != {"search", "replace"} or not edit["search"]:
            raise ConfigError(f"{path}: recipe.{number}: has {sorted(edit)}; an edit is a `search` and a `replace`")
    for number, claim in enumerate(method.claims):
        if not claim.source or not claim.locator:
            raise ConfigError(f"{path}: claims.{number}: needs a source and a locator, so that it can be looked up")
    for field, predicate in (("applies_if", method.applies_if), ("present_if", method.present_if)):
        if predicate:
            try:
                check(predicate, method=method.id)
            except ConfigError as error:
                raise ConfigError(f"{path}: {field}: {error}") from error
    if method.recipe and not method.present_if:
        raise ConfigError(f"{path}: present_if: a method with a recipe needs one, to tell whether code has it")
    return method


def bundled(method: Method) -> bool:
    """Tell whether looper ships a method with these very words.

    Its claims may be those of another shipped method: for the placebo they are dealt anew.
    """
    path = PACK / f"{method.id}.yaml"
    shipped = _shipped(path) if method.id.isidentifier() and path.is_file() else None
    if shipped is None or any(getattr(shipped, name) != getattr(method, name) for name in _SHOWN):
        return False
    return shipped.claims == method.claims or set(method.claims) <= _claims()


_SHOWN = ("name", "category", "summary", "recipe", "couples_with", "contraindications")
"""Fields that a brief prints, besides the claims."""


@lru_cache(maxsize=256)
def _shipped(path: Path) -> Method:
    return read(path)


@lru_cache(maxsize=1)
def _claims() -> frozenset[Claim]:
    return frozenset(claim for method in load() for claim in method.claims)


def _fields(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} holds {type(fields).__name__}; a method is a mapping of {', '.join(_names())}")
    return fields


def _validated(path: Path, fields: Mapping[str, Any]) -> Method:
    unknown = sorted(set(map(str, fields)) - set(_names()))
    if unknown:
        raise ConfigError(f"{path}: unknown field {unknown[0]!r}; choose from {', '.join(_names())}")
    try:
        return Method.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {field}: {first['msg']} (it is {first['input']!r})") from error


def _names() -> list[str]:
    return list(Method.model_fields)
