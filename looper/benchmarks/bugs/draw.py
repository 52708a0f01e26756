"""One draw: a repository with one bug, its issue, its tests; a pure function of family, index and world."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from random import Random

from looper.benchmarks.bugs import repo
from looper.benchmarks.bugs.defect import Defect, find_defect
from looper.benchmarks.bugs.execute import Case, probe
from looper.benchmarks.bugs.family import Family, Live, two_copy_mix_family
from looper.benchmarks.bugs.grammar import draw_function
from looper.benchmarks.bugs.hidden import HIDDEN, Check, hidden_file
from looper.benchmarks.bugs.issue import write
from looper.benchmarks.bugs.scope import Function
from looper.benchmarks.bugs.templates import draw_template
from looper.errors import ConfigError
from looper.records import Source, Task, Tests


@dataclass(frozen=True, kw_only=True)
class Site:
    """One line of the repository, as it is and as it would be after an edit."""

    path: str
    line: int
    """1-based."""
    broken: str
    """The line at the base commit, with its indentation."""
    fixed: str
    """The line after the edit."""


@dataclass(frozen=True, kw_only=True)
class Bug:
    """Where the bug is and what edits are near it."""

    function: str
    kind: str
    """Kind of mutation, a value of `mutate.Kind`."""
    site: Site
    """The fix of the live copy."""
    other: Site | None
    """The same edit in the second copy; None in ordinary repositories."""
    decoys: tuple[Site, ...]
    """One-line edits of the live copy that do not repair the shown example."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A task and what its author knows about it."""

    task: Task
    bug: Bug
    trees: tuple[str, str] | None
    """Names of the two trees, the live one first in world A; None in ordinary repositories."""


def draw(family: Family, index: int, *, world: str = "") -> Draw:
    """Return the index-th task of a family; worlds 'A' and 'B' exist for evaluated two-copy families only.

    Raises ConfigError for a world that the family does not have, or a negative index.
    """
    worlds = ("A", "B") if family.trees is not None else ("",)
    if world not in worlds:
        raise ConfigError(
            f"family {family.name!r} has no world {world!r}; choose one of {', '.join(map(repr, worlds))}"
        )
    if index < 0:
        raise ConfigError(f"task index {index} is negative; use 0 or more")
    stem = family.stem or family.name
    rng = Random(f"bugs:{stem}:{index}")
    if family.trees is not None:  # conventions other than the live tree vary by task, as in the training mix
        drawn = two_copy_mix_family(1_000_000_000 + index)
        kept = {key: getattr(family, key) for key in ("name", "kind", "trees", "live", "mark", "stem")}
        family = replace(drawn, **kept)
    defect = _defect(rng, family)
    members = _members(rng, family, defect)
    issue = write(rng, family.dialect, defect.function.name, defect.shown, defect.sentence)
    text = f"{issue}\n{defect.function.source}".lower()
    trees = repo.tree_names(rng, family, text) if family.two_copy else None
    places = _places(rng, family, members, trees)
    return _assemble(rng, family, index, world, issue, defect, members, places, trees)


def _function(rng: Random, family: Family, seen: set[str]) -> Function:
    while True:
        source = draw_template if rng.random() < family.templates else draw_function
        function = source(rng, family)
        if function is not None and function.name not in seen:
            seen.add(function.name)
            return function


def _defect(rng: Random, family: Family) -> Defect:
    while True:
        found = find_defect(rng, _function(rng, family, set()), quiet=family.two_copy)
        if found is not None:
            return found


def _members(rng: Random, family: Family, defect: Defect) -> list[repo.Member]:
    """Return the repository's functions: the faulty one, at a random place, and sound ones."""
    modules = 2 if family.two_copy or rng.random() < 0.6 else 3
    sizes = [rng.randint(1, 2) if family.two_copy else rng.randint(2, 3) for _ in range(modules)]
    slots = [i for i, size in enumerate(sizes) for _ in range(size)]
    faulty = rng.randrange(len(slots))
    seen = {defect.function.name}
    out: list[repo.Member] = []
    for slot, module in enumerate(slots):
        if slot == faulty:
            out.append(repo.Member(function=defect.function, module=module, cases=defect.visible, faulty=True))
            continue
        cases: tuple[Case, ...] = ()
        while not cases:
            function = _function(rng, family, seen)
            found = probe(rng, function, want=2, tries=5)
            if found is not None:
                cases = tuple(Case(args=a, expected=repr(e)) for a, e in zip(found.texts, found.expected, strict=True))
        out.append(repo.Member(function=function, module=module, cases=cases))
    return out


def _places(
    rng: Random, family: Family, members: list[repo.Member], trees: tuple[str, str] | None
) -> list[tuple[repo.Place, ...]]:
    """Return where each module lies; two places a module in two-copy repositories, in the order of the trees."""
    count = 1 + max(m.module for m in members)
    avoid = {m.function.name for m in members} | {"app", "python", "packages", *(trees or ())}
    names = repo.fresh_words(rng, family, count, avoid)
    package, sub, inner = repo.fresh_words(rng, family, 3, avoid)
    if trees is not None:
        # Evaluated trees share a folder, so that the choice is between their names and nothing else.
        second = package if family.trees is not None or rng.random() < 0.75 else sub
        if family.mark:
            package = second = family.mark
        return [(repo.tree_place(package, trees[0], name), repo.tree_place(second, trees[1], name)) for name in names]
    return [(repo.place(family.layout, (package, sub, inner), name),) for name in names]


def _module_text(functions: list[tuple[str, ...]]) -> str:
    return "\n\n\n".join("\n".join(lines) for lines in functions) + "\n"


def _assemble(
    rng: Random,
    family: Family,
    index: int,
    world: str,
    issue: str,
    defect: Defect,
    members: list[repo.Member],
    places: list[tuple[repo.Place, ...]],
    trees: tuple[str, str] | None,
) -> Draw:
    name = defect.function.name
    files: dict[str, str] = {}
    for row in places:
        for place in row:
            files.update({f"{folder}/__init__.py": "" for folder in place.packages})
    first_line, home = 0, 0
    for module, row in enumerate(places):
        bodies: list[tuple[str, ...]] = []
        for member in members:
            if member.module != module:
                continue
            if member.function.name == name:
                first_line, home = sum(len(b) + 2 for b in bodies) + 1, module
            bodies.append(defect.broken if member.function.name == name else member.function.lines)
        files.update({place.path: _module_text(bodies) for place in row})
    files.update(repo.visible_tests(rng, family, members, places))
    project = places[home][0].dotted.split(".")[0]
    files["README.md"] = f"# {project}\n"
    coin = rng.randrange(2)
    if family.trees is not None:
        coin = _balanced(family, index)
    live = _live(family, world, coin) if trees is not None else 0
    sites = [_sites(place.path, first_line, defect) for place in places[home]]
    bug = Bug(
        function=name,
        kind=defect.kind.value,
        site=sites[live][0],
        other=sites[1 - live][0] if trees is not None else None,
        decoys=tuple(sites[live][1:]),
    )
    tests = _tests(rng, defect, members, places, live)
    stem = family.stem or family.name
    source = Source(name=f"bugs/{stem}/{index:04d}", files=dict(sorted(files.items())))
    label = family.kind if trees is not None and family.trees is not None else family.name
    if family.mark and family.live is Live.COIN:
        label += "-placebo"
    task = Task(
        id=f"bugs/{label}/{world}/{index:04d}" if world else f"bugs/{label}/{index:04d}",
        family=family.kind,
        world=world,
        pair=f"bugs/{label}/{index:04d}",
        issue=issue,
        source=source,
        tests=tests,
        gold=_diff(files[bug.site.path], bug.site),
    )
    return Draw(task=task, bug=bug, trees=trees)


def _balanced(family: Family, index: int) -> int:
    """Return a coin of which one of each two tasks in a row has heads: no leaning to one tree is right more often."""
    return Random(f"bugs:coin:{family.stem}:{index // 2}").randrange(2) ^ (index & 1)


def _live(family: Family, world: str, coin: int) -> int:
    """Return which copy is live: by world, by coin and world, or by coin."""
    flipped = int(world == "B")
    return flipped ^ {Live.FIRST: 0, Live.SECOND: 1, Live.COIN: coin}[family.live]


def _sites(path: str, first_line: int, defect: Defect) -> list[Site]:
    """Return the fix and the decoys as lines of a file."""
    rows = [(defect.line, defect.function.lines[defect.line]), *defect.decoys]
    return [Site(path=path, line=first_line + n, broken=defect.broken[n], fixed=text) for n, text in rows]


def _tests(
    rng: Random, defect: Defect, members: list[repo.Member], places: list[tuple[repo.Place, ...]], live: int
) -> Tests:
    """Return the hidden half: the live copy must be repaired, everything else must still work."""
    name = defect.function.name
    checks: list[Check] = []
    fail: list[str] = []
    for n, case in enumerate((*defect.failing, *defect.passing)):
        home = next(m.module for m in members if m.function.name == name)
        checks.append(Check(id=f"{name}-{n + 1}", module=places[home][live].dotted, function=name, case=case))
        if n < len(defect.failing):
            fail.append(checks[-1].id)
    for member in members:
        if member.function.name == name:
            continue
        for place in places[member.module]:
            for n, case in enumerate(member.cases):
                which = f"{place.dotted}." if len(places[member.module]) > 1 else ""
                ident = f"{which}{member.function.name}-{n + 1}"
                checks.append(Check(id=ident, module=place.dotted, function=member.function.name, case=case))
    token = f"{rng.getrandbits(96):024x}"
    roots = sorted({p.root for row in places for p in row if p.root})
    return Tests(
        files={HIDDEN: hidden_file(token, checks, roots)},
        command=f"python -I -S -B {HIDDEN}",
        fail_to_pass=tuple(fail),
        pass_to_pass=tuple(c.id for c in checks if c.id not in set(fail)),
        seconds=20.0,
    )


def _diff(text: str, site: Site) -> str:
    """Return the fix as a unified diff that `git apply` accepts."""
    old = text.splitlines(keepends=True)
    new = [*old[: site.line - 1], site.fixed + "\n", *old[site.line :]]
    return "".join(difflib.unified_diff(old, new, f"a/{site.path}", f"b/{site.path}"))
