"""Templates: functions with a meaning of their own, written by hand; the grammar draws the rest."""

from __future__ import annotations

from random import Random

from looper.benchmarks.bugs.family import Family
from looper.benchmarks.bugs.grammar import finish, function_name
from looper.benchmarks.bugs.scope import Function, Scope

Template = tuple[str, str, tuple[tuple[str, str, str], ...], tuple[tuple[str, str, str], ...], str]
"""Tag, type of the result, parameters (key, type, domain), locals (key, type, role), and the body's lines."""

_NUMBER, _SMALL, _INTS = ("int", "number"), ("int", "small"), ("ints", "ints")

TEMPLATES: tuple[Template, ...] = (
    (
        "math",
        "int",
        (("a", *_NUMBER), ("b", *_SMALL), ("c", *_NUMBER)),
        (),
        "if {a} < {b}:\n    return {b}\nif {a} > {c}:\n    return {c}\nreturn {a}",
    ),
    (
        "test",
        "bool",
        (("a", *_SMALL), ("b", *_NUMBER), ("c", *_SMALL), ("d", *_NUMBER)),
        (),
        "if {a} > {d}:\n    return False\nreturn {c} <= {b} and {a} <= {b}",
    ),
    (
        "math",
        "int",
        (("a", *_NUMBER), ("b", *_NUMBER)),
        (("t", "int", "sum"),),
        "{t} = {a} * {b}\nif {b} >= 3:\n    {t} -= {a}\nreturn {t}",
    ),
    (
        "map",
        "ints",
        (("a", *_INTS), ("b", *_SMALL)),
        (("t", "ints", "list"), ("i", "int", "index")),
        "{t} = []\nfor {i} in range(len({a}) - {b} + 1):\n    {t}.append(sum({a}[{i}:{i} + {b}]))\nreturn {t}",
    ),
    (
        "text",
        "str",
        (("a", "str", "text"),),
        (("t", "str", "text"), ("w", "str", "word")),
        '{t} = ""\nfor {w} in {a}.split():\n    {t} += {w}[0].upper()\nreturn {t}',
    ),
    (
        "text",
        "str",
        (("a", "words", "words"),),
        (("t", "words", "list"), ("w", "str", "word")),
        '{t} = []\nfor {w} in {a}:\n    {t}.append({w}[0].upper() + {w}[1:])\nreturn " ".join({t})',
    ),
    (
        "best",
        "int",
        (("a", *_INTS), ("b", *_SMALL)),
        (("t", "int", "best"), ("r", "int", "count"), ("x", "int", "item")),
        "{t} = 0\n{r} = 0\nfor {x} in {a}:\n    {r} += 1\n    if {x} <= {b}:\n        {r} = 0\n"
        "    {t} = max({t}, {r})\nreturn {t}",
    ),
    (
        "map",
        "ints",
        (("a", *_INTS), ("b", *_INTS)),
        (("t", "ints", "list"), ("i", "int", "index")),
        "{t} = []\nfor {i} in range(min(len({a}), len({b}))):\n    {t}.append({a}[{i}] - {b}[{i}])\nreturn {t}",
    ),
    (
        "map",
        "table",
        (("a", "table", "table"), ("b", "table", "table")),
        (("t", "table", "dict"), ("k", "str", "word")),
        "{t} = dict({a})\nfor {k} in {b}:\n    {t}[{k}] = {t}.get({k}, 0) + {b}[{k}]\nreturn {t}",
    ),
    (
        "count",
        "int",
        (("a", *_INTS), ("b", *_NUMBER)),
        (("t", "int", "count"), ("i", "int", "index"), ("j", "int", "value")),
        "{t} = 0\nfor {i} in range(len({a})):\n    for {j} in range({i} + 1, len({a})):\n"
        "        if {a}[{i}] + {a}[{j}] > {b}:\n            {t} += 1\nreturn {t}",
    ),
    (
        "text",
        "str",
        (("a", "str", "word"), ("b", *_SMALL)),
        (("g", "int", "value"),),
        '{g} = {b} - len({a})\nif {g} <= 0:\n    return {a}\nreturn "." * {g} + {a}',
    ),
    (
        "math",
        "int",
        (("a", *_NUMBER), ("b", *_SMALL), ("c", *_SMALL)),
        (("t", "int", "value"),),
        "if {a} <= 2:\n    return {b}\n{t} = ({a} - 2) * {c}\nreturn {b} + {t}",
    ),
    (
        "math",
        "int",
        (("a", *_NUMBER), ("b", *_SMALL), ("c", *_NUMBER), ("d", *_SMALL)),
        (("x", "int", "value"), ("y", "int", "best")),
        "{x} = abs({a} - {c})\n{y} = abs({b} - {d})\nreturn {x} + {y}",
    ),
    (
        "best",
        "int",
        (("a", *_INTS), ("b", *_SMALL)),
        (("t", "int", "best"), ("i", "int", "index"), ("x", "int", "item")),
        "{t} = -1\nfor {i}, {x} in enumerate({a}):\n    if {x} == {b}:\n        {t} = {i}\nreturn {t}",
    ),
    (
        "order",
        "ints",
        (("a", *_INTS), ("b", *_SMALL)),
        (("t", "ints", "list"), ("g", "int", "value")),
        "{g} = {b} % len({a})\n{t} = {a}[{g}:] + {a}[:{g}]\nreturn {t}",
    ),
    (
        "math",
        "int",
        (("a", *_SMALL), ("b", *_NUMBER), ("c", *_NUMBER)),
        (("t", "int", "value"),),
        "{t} = {a} * 60 + {b}\nif {t} < {c}:\n    return 0\nreturn {t} - {c}",
    ),
    (
        "order",
        "ints",
        (("a", *_INTS), ("b", *_INTS)),
        (("t", "ints", "list"), ("x", "int", "item")),
        "{t} = []\nfor {x} in {a}:\n    if {x} in {b}:\n        {t}.append({x})\nreturn sorted({t})",
    ),
    (
        "sum",
        "int",
        (("a", "table", "table"), ("b", "words", "words")),
        (("t", "int", "sum"), ("k", "str", "word")),
        "{t} = 0\nfor {k} in {b}:\n    if {k} in {a}:\n        {t} += {a}[{k}]\nreturn {t}",
    ),
    (
        "text",
        "str",
        (("a", "str", "text"), ("b", *_SMALL)),
        (("t", "str", "text"),),
        '{t} = {a}.strip()\nif len({t}) > {b}:\n    {t} = {t}[:{b}] + "."\nreturn {t}',
    ),
)
"""The templates."""


def draw_template(rng: Random, family: Family) -> Function | None:
    """Return a function from a template, with names of the family; None if it came out too long or wide."""
    tag, returns, params, locals_, body = rng.choice(TEMPLATES)
    scope = Scope(rng=rng, family=family)
    names = {key: scope.param(kind, domain) for key, kind, domain in params}
    names |= {key: scope.local(role, kind) for key, kind, role in locals_}
    for line in body.replace('"', family.quote).format_map(names).split("\n"):
        scope.emit(line)
    return finish(scope, function_name(rng, family, tag), tag, returns)
