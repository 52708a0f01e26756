"""YAML from elsewhere: no objects, no anchors (which can grow without end), no key twice."""

from __future__ import annotations

from typing import Any

DEEPEST = 50
"""Most lists and mappings within one another."""


def read_yaml(text: str) -> Any:
    """Return what a YAML (or JSON) text says. Raises ValueError with the place for everything that is not allowed."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:  # the parser needs time quadratic in the depth
                raise ValueError(f"line {event.start_mark.line + 1}: it is nested more than {DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = event.start_mark.line + 1
                raise ValueError(f"line {line}: anchors and aliases are not allowed; repeat the text")
        _check_keys(yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_keys(node: Any) -> None:
    """Raise ValueError for a mapping that gives a key twice: YAML would take the last without a word."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    seen: set[str] = set()
    for key, value in pairs:
        if str(key.value) in seen:
            raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
        seen.add(str(key.value))
        _check_keys(value)
    for item in node.value if getattr(node, "id", "") == "sequence" else []:
        _check_keys(item)
