"""The grammar: pipelines of stages become functions with names in a family's style."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from looper.benchmarks.bugs import stages as n
from looper.benchmarks.bugs import stages_text as t
from looper.benchmarks.bugs.family import Family
from looper.benchmarks.bugs.scope import TYPES, ZERO, Function, Scope
from looper.benchmarks.bugs.words import NATURAL_VERBS, VERBS, foreign, invented, taken

Stage = tuple[Callable[[Scope, str], str], str, str, int]
"""A stage: its function, the type it gives, what it does (a key of VERBS), its weight."""

STAGES: dict[str, tuple[Stage, ...]] = {
    "ints": (
        (n.keep_ints, "ints", "filter", 4),
        (n.map_ints, "ints", "map", 3),
        (n.running, "ints", "map", 2),
        (n.shape_ints, "ints", "order", 2),
        (n.unique, "ints", "filter", 1),
        (n.sum_ints, "int", "sum", 5),
        (n.count_ints, "int", "count", 4),
        (n.rises, "int", "count", 3),
        (n.best_int, "int", "best", 4),
        (n.first_index, "int", "best", 3),
        (n.every, "bool", "test", 2),
    ),
    "int": (
        (n.arithmetic, "int", "math", 3),
        (n.adjust, "int", "math", 4),
        (n.early, "int", "math", 4),
        (n.digits, "int", "sum", 2),
        (n.steps, "int", "sum", 4),
        (n.ladder, "str", "label", 2),
        (n.label, "str", "text", 1),
        (n.compare, "bool", "test", 2),
        (n.spread, "ints", "map", 2),
    ),
    "str": (
        (t.clean, "str", "text", 2),
        (t.cut, "str", "text", 3),
        (t.filter_chars, "str", "text", 4),
        (t.count_chars, "int", "count", 4),
        (t.measure, "int", "count", 2),
        (t.split, "words", "map", 4),
    ),
    "words": (
        (t.keep_words, "words", "filter", 4),
        (t.map_words, "words", "map", 2),
        (t.shape_words, "words", "order", 2),
        (n.unique, "words", "filter", 1),
        (t.join, "str", "text", 3),
        (t.best_word, "str", "best", 4),
        (t.count_words, "int", "count", 4),
        (t.tally, "table", "map", 3),
    ),
    "table": (
        (t.sum_table, "int", "sum", 4),
        (t.keys_of, "words", "filter", 4),
        (t.best_key, "str", "best", 2),
        (t.look_up, "int", "best", 2),
    ),
}

NATURAL_STAGES: dict[str, tuple[Stage, ...]] = {
    "ints": ((n.pairs, "int", "count", 8), (n.ranked, "int", "sum", 8)),
    "int": ((n.parts, "int", "math", 8),),
}
"""Stages that only natural families use."""

STARTS = (
    ("ints", "ints", 9),
    ("int", "number", 5),
    ("int", "digits", 2),
    ("str", "text", 3),
    ("str", "padded", 2),
    ("str", "csv", 2),
    ("words", "words", 5),
    ("table", "table", 3),
)
"""First parameters: type, domain, weight."""

_FIRST_ONLY = {"digits": (n.digits,), "csv": (t.split,), "padded": (t.clean, t.split)}
"""Domains that make sense for some first stages only."""


DOCSTRINGS: dict[str, tuple[str, ...]] = {
    "count": ("Return a count.", "Return how many there are."),
    "sum": ("Return a total.", "Return the sum."),
    "best": ("Return one of them.", "Return what is looked for."),
    "filter": ("Return those that pass.", "Return a selection."),
    "map": ("Return the new values.", "Return what is made of them."),
    "order": ("Return a list.", "Return them arranged."),
    "text": ("Return a text.", "Return the written form."),
    "label": ("Return a label.", "Return the class."),
    "math": ("Return a number.", "Return the result."),
    "test": ("Return whether it holds.", "Return True or False."),
}
"""Docstrings by what a function does."""


def _weighted(rng: Random, rows: tuple[Stage, ...]) -> Stage:
    point = rng.random() * sum(row[3] for row in rows)
    for row in rows:
        point -= row[3]
        if point < 0:
            return row
    return rows[-1]


def _start(rng: Random) -> tuple[str, str]:
    point = rng.random() * sum(row[2] for row in STARTS)
    for kind, domain, weight in STARTS:
        point -= weight
        if point < 0:
            return kind, domain
    return STARTS[0][:2]


def draw_word(rng: Random, family: Family) -> str:
    """Return a noun of the family, or an invented word."""
    if rng.random() >= family.invented:
        return rng.choice(family.pool)
    return invented(rng)


def function_name(rng: Random, family: Family, tag: str) -> str:
    """Return a function name in the family's style."""
    verb = rng.choice((NATURAL_VERBS if family.natural else VERBS)[tag])
    a, b = draw_word(rng, family), draw_word(rng, family)
    style = family.naming
    if style == "camel":
        return f"{verb}{a.capitalize()}" + (b.capitalize() if rng.random() < 0.4 else "")
    if style == "short":
        return f"{verb[:3]}_{a[:4]}" + (f"_{b[:3]}" if rng.random() < 0.5 else "")
    styles = {
        "verb_noun": f"{verb}_{a}",
        "noun_verb": f"{a}_{verb}",
        "verb_noun_noun": f"{verb}_{a}_{b}",
        "prefix": f"{family.prefix}_{verb}_{a}",
        "noun_noun_verb": f"{a}_{b}_{verb}",
        "glued": f"{a}_{family.glue}_{b}",
        "verb_glued": f"{verb}_{a}_{family.glue}_{b}",
        "glued_verb": f"{a}_{family.glue}_{b}_{verb}",
        "noun_from_noun": f"{verb}_{a}_from_{b}",
        "verb_by_noun": f"{a}_{verb}_by_{b}",
        "as_noun_verb": f"as_{a}_{verb}",
    }
    return styles[style]


def _body(scope: Scope, kind: str, first: str, domain: str) -> tuple[str, str]:
    """Write stages into the scope until there is enough; return the result's type and what was done."""
    rng, current, tag = scope.rng, first, "map"
    budget = rng.randint(3, 5)
    for step in range(4):
        rows = STAGES[kind]
        if scope.family.natural:
            rows += NATURAL_STAGES.get(kind, ())
        if step == 0 and domain in _FIRST_ONLY:
            rows = tuple(row for row in rows if row[0] in _FIRST_ONLY[domain])
        stage, out, done, _ = _weighted(rng, rows)
        expr = stage(scope, current)
        tag = done
        if out == "bool" or expr in ("-1",) or expr.startswith(('"', "'")) or len(scope.lines) >= budget or step == 3:
            scope.emit(f"return {expr}")
            return out, tag
        if expr in scope.types:
            current = expr
        else:
            role = {"int": "value", "str": "text", "ints": "list", "words": "list", "table": "dict"}[out]
            current = scope.local(role, out)
            scope.emit(f"{current} = {expr}")
        kind = out
    raise AssertionError("the last stage returns")


def draw_function(rng: Random, family: Family) -> Function | None:
    """Return a function of 4 to 9 lines, or None if the draw came out too short, long or wide."""
    kind, domain = _start(rng)
    scope = Scope(rng=rng, family=family)
    role = {"ints": "noun", "int": "noun", "words": "noun"}.get(kind, "noun")
    first = scope.param(kind, domain, role)
    returns, tag = _body(scope, kind, first, domain)
    return finish(scope, function_name(rng, family, tag), tag, returns)


def finish(scope: Scope, name: str, tag: str, returns: str) -> Function | None:
    """Add signature, docstring and guard to a body; None if the function is too short, long or wide."""
    family, rng = scope.family, scope.rng
    text = "\n".join(scope.lines)
    used = set(re.findall(r"[A-Za-z_]\w*", text))
    params = [p for p in scope.params if p.name in used]
    types = {k: v for k, v in scope.types.items() if k in used}
    head: list[str] = []
    listed = ", ".join(f"{p.name}: {TYPES[p.type]}" if family.hints else p.name for p in params)
    head.append(f"def {name}({listed})" + (f" -> {TYPES[returns]}:" if family.hints else ":"))
    if family.docstrings and len(scope.lines) < 8:
        head.append(f'    """{rng.choice(DOCSTRINGS[tag])}"""')
    if params and params[0].type != "int" and len(scope.lines) < 7 and scope.chance(family.guards):
        zero = rng.choice(ZERO[returns])
        head += [f"    if not {params[0].name}:", f"        return {scope.text('') if zero == chr(34) * 2 else zero}"]
    lines = tuple(head + scope.lines)
    if not 4 <= len(lines) <= 9 or not params or max(map(len, lines)) > 66:
        return None
    frozen = frozenset(i + len(head) for i in scope.frozen)
    parts = re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower())
    if taken(name) or not name.isidentifier() or (not family.natural and any(map(foreign, parts))):
        return None
    return Function(
        name=name,
        tag=tag,
        params=tuple(params),
        lines=lines,
        returns=returns,
        types=types,
        frozen=frozen,
    )
