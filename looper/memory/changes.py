"""What a change of code changed: knobs with both values, and definitions added, removed or rewritten."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from looper.memory.folding import Unfolded, Value
from looper.memory.syntax import Code, Definition, canonical, code_of, statements

MODULE = "<module>"
"""Name under which statements outside all definitions, other than knobs, are compared."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The difference of two codes in syntax; empty where they do the same."""

    knobs: dict[str, tuple[Value | Unfolded | None, Value | Unfolded | None]]
    """Knobs and class fields whose value changed: (before, after), None where there is none."""
    added: tuple[str, ...] = ()
    """Definitions by dotted name."""
    removed: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    """Definitions whose own statements changed, and `<module>` for those outside; not what only holds a changed one."""

    def __bool__(self) -> bool:
        return bool(self.knobs or self.added or self.removed or self.rewritten)

    def __str__(self) -> str:
        lines = [f"{name}: {_shown(old)} -> {_shown(new)}" for name, (old, new) in self.knobs.items()]
        for what, names in (("added", self.added), ("removed", self.removed), ("rewritten", self.rewritten)):
            if names:
                lines.append(f"{what}: {', '.join(names)}")
        return "\n".join(lines) or "no change of syntax"


def changes(before: Code | str, after: Code | str) -> Changes:
    """Return what differs between two codes. One that does not parse counts as a rewritten module."""
    before, after = code_of(before), code_of(after)
    if before.tree is None or after.tree is None:
        return Changes(knobs={}, rewritten=(MODULE,) if before.digest != after.digest else ())
    old, new = parts(before), parts(after)
    values = [{**code.knobs, **code.fields} for code in (before, after)]
    return Changes(
        knobs={
            name: (values[0].get(name), values[1].get(name))
            for name in dict.fromkeys([*values[0], *values[1]])
            if _kind(values[0].get(name)) != _kind(values[1].get(name))
        },
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        rewritten=tuple(name for name in new if name in old and new[name] != old[name]),
    )


@lru_cache(maxsize=64)
def parts(code: Code) -> dict[str, str]:
    """Return the canonical text of each definition without those inside it, and without knobs and class fields."""
    if code.tree is None:
        return {}
    out = {MODULE: _own(code.tree, set(code.knobs))}
    for name, node in code.definitions:
        fields = {key.rpartition(".")[2] for key in code.fields if key.rpartition(".")[0] == name}
        text = _own(node, fields if isinstance(node, ast.ClassDef) else set())
        out[name] = out[name] + text if name in out else text  # defined twice, e.g. in two branches
    return out


def _own(node: ast.Module | Definition, values: set[str]) -> str:
    body = [part for part in statements(node.body) if not isinstance(part, Definition) and not _sets(part, values)]
    if isinstance(node, ast.Module):
        return canonical(ast.Module(body=body, type_ignores=[]))
    head = {name: value for name, value in ast.iter_fields(node) if name not in ("body", "name")}
    return canonical(type(node)(name="", body=body, **head))


def _sets(node: ast.stmt, names: set[str]) -> bool:
    match node:
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Name) and target.id in names for target in targets)
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return name in names
    return False


def _kind(value: Value | Unfolded | None) -> tuple[type, Any]:
    """Tell 1 from 1.0 and True, which Python calls equal."""
    return type(value), repr(value)


def _shown(value: Value | Unfolded | None) -> str:
    if value is None:
        return "nothing"
    return value.source if isinstance(value, Unfolded) else repr(value)
