"""Repositories: where modules lie, and how tests reach them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from looper.benchmarks.bugs.execute import Case
from looper.benchmarks.bugs.family import Family
from looper.benchmarks.bugs.grammar import draw_word
from looper.benchmarks.bugs.scope import Function
from looper.benchmarks.bugs.words import MIX_TREES, invented, taken


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a module lies and how it is imported."""

    path: str
    dotted: str
    packages: tuple[str, ...]
    """Folders that need an `__init__.py`."""
    root: str = ""
    """Folder that must be on the import path; empty for the repository's root."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A function of the repository with its module's number and its cases."""

    function: Function
    module: int
    cases: tuple[Case, ...]
    faulty: bool = False


def fresh_words(rng: Random, family: Family, count: int, avoid: set[str]) -> list[str]:
    """Return distinct words that are good as module names, and add them to `avoid`."""
    out: list[str] = []
    while len(out) < count:
        word = draw_word(rng, family)
        if word not in avoid and not taken(word) and len(word) < 11:
            avoid.add(word)
            out.append(word)
    return out


def _chain(folders: tuple[str, ...], module: str, *, rooted: bool) -> Place:
    """Return a module below nested packages, of which the first folder may be a root of imports instead."""
    paths = tuple("/".join(folders[: n + 1]) for n in range(len(folders)))
    return Place(
        path="/".join((*folders, f"{module}.py")),
        dotted=".".join((*folders[rooted:], module)),
        packages=paths[rooted:],
        root=folders[0] if rooted else "",
    )


def place(layout: str, folders: tuple[str, str, str], module: str) -> Place:
    """Return where a module lies in a layout, given names for its folders."""
    package, sub, _ = folders
    if layout in ("deep", "rooted", "rooted_sub", "rooted_deep"):
        depth = {"deep": 3, "rooted": 1, "rooted_sub": 2, "rooted_deep": 3}[layout]
        return _chain(folders[:depth], module, rooted=layout != "deep")
    if layout == "root":
        return Place(path=f"{module}.py", dotted=module, packages=())
    if layout == "src":
        return Place(
            path=f"src/{package}/{module}.py", dotted=f"{package}.{module}", packages=(f"src/{package}",), root="src"
        )
    if layout == "lib_sub":
        inits = (f"lib/{package}", f"lib/{package}/{sub}")
        return Place(
            path=f"lib/{package}/{sub}/{module}.py", dotted=f"{package}.{sub}.{module}", packages=inits, root="lib"
        )
    if layout == "nested":
        inits = (package, f"{package}/{sub}")
        return Place(path=f"{package}/{sub}/{module}.py", dotted=f"{package}.{sub}.{module}", packages=inits)
    if layout == "folder":
        return Place(path=f"app/{module}.py", dotted=module, packages=(), root="app")
    if layout == "python_dir":
        return Place(
            path=f"python/{package}/{module}.py",
            dotted=f"{package}.{module}",
            packages=(f"python/{package}",),
            root="python",
        )
    if layout == "component":
        inits = (package, f"{package}/{module}")
        return Place(path=f"{package}/{module}/impl.py", dotted=f"{package}.{module}.impl", packages=inits)
    if layout == "domain":
        inits = (f"packages/{package}", f"packages/{package}/{sub}")
        return Place(
            path=f"packages/{package}/{sub}/{module}.py",
            dotted=f"{package}.{sub}.{module}",
            packages=inits,
            root="packages",
        )
    return Place(path=f"{package}/{module}.py", dotted=f"{package}.{module}", packages=(package,))


def tree_place(parent: str, tree: str, module: str) -> Place:
    """Return where a module's copy lies in a two-copy repository."""
    return Place(
        path=f"{parent}/{tree}/{module}.py", dotted=f"{parent}.{tree}.{module}", packages=(parent, f"{parent}/{tree}")
    )


def tree_names(rng: Random, family: Family, text: str) -> tuple[str, str]:
    """Return the two tree names of a task; drawn ones do not occur in `text`, so that it cannot point at a copy."""
    if family.trees is not None:
        return family.trees
    while True:
        a, b = rng.sample(MIX_TREES, 2) if rng.random() < 0.6 else (invented(rng), invented(rng))
        if a != b and a not in text and b not in text:
            return a, b


def visible_tests(
    rng: Random, family: Family, members: list[Member], places: list[tuple[Place, ...]]
) -> dict[str, str]:
    """Return the test files: one a module, or one in all (`single`)."""
    groups = [[m for m in members if m.module == i] for i in range(len(places))]
    numbers = [list(range(len(places)))] if family.tests == "single" else [[i] for i in range(len(places))]
    roots = sorted({p.root for row in places for p in row if p.root})
    head = f"import sys\n\nsys.path.insert(0, {roots[0]!r})\n" if roots else ""
    files = {"tests/__init__.py": head}
    for group in numbers:
        body = "".join(_test_method(rng, family, m, places[i]) for i in group for m in groups[i])
        lines = "".join(_import_line(family, groups[i], place) for i in group for place in places[i])
        stem = "all" if family.tests == "single" else places[group[0]][0].dotted.replace(".", "_")
        if len(places[group[0]]) > 1:
            stem = places[group[0]][0].dotted.rpartition(".")[2]
        title = "".join(part.capitalize() for part in stem.split("_"))
        files[f"tests/test_{stem}.py"] = (
            f"import unittest\n\n{lines}\n\nclass {title}Test(unittest.TestCase):\n{body.rstrip()}\n"
        )
    return files


def _alias(place: Place) -> str:
    return "_".join(place.dotted.split(".")[-2:])


def _import_line(family: Family, members: list[Member], place: Place) -> str:
    if "." in place.dotted and (family.two_copy or family.imports == "alias"):
        return f"import {place.dotted} as {_alias(place)}\n"
    if family.imports in ("module", "alias") or not members:
        return f"import {place.dotted}\n"
    return f"from {place.dotted} import {', '.join(m.function.name for m in members)}\n"


def _reach(family: Family, place: Place, name: str) -> str:
    if family.two_copy or family.imports == "alias":
        return f"{_alias(place)}.{name}"
    return f"{place.dotted}.{name}" if family.imports == "module" else name


def _test_method(rng: Random, family: Family, member: Member, places: tuple[Place, ...]) -> str:
    name = member.function.name
    lines = [f"    def test_{name}(self):\n"]
    calls = [_reach(family, p, name) for p in places]
    if family.tests == "table" and len(places) == 1 and len(member.cases) > 1:
        rows = ", ".join(f"(({case.args},), {case.expected})" for case in member.cases)
        lines.append(f"        for args, want in [{rows}]:\n            self.assertEqual({calls[0]}(*args), want)\n")
        return "".join([*lines, "\n"])
    for case in member.cases:
        if len(places) > 1 and member.faulty:
            lines.append(f"        got = [{', '.join(f'{call}({case.args})' for call in calls)}]\n")
            lines.append(f"        self.assertIn({case.expected}, got)\n")
            continue
        for call in calls:
            lines.append(f"        self.assertEqual({call}({case.args}), {case.expected})\n")
    return "".join([*lines, "\n"])
