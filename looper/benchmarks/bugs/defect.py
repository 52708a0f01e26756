"""Defects: a mutation whose behaviour was executed, with the example that best tells how to repair it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from looper.benchmarks.bugs.execute import ODD, Callee, Case, Probe, Raised, load, outcome, probe
from looper.benchmarks.bugs.issue import behaviour, hint_key, in_words
from looper.benchmarks.bugs.mutate import Edit, Kind, edits
from looper.benchmarks.bugs.scope import Function

_WEIGHTS = {Kind.BOUNDARY: 4.0, Kind.LOGIC: 4.0, Kind.AGGREGATE: 2.0, Kind.MISSING_STEP: 2.0, Kind.VARIABLE: 0.8}
"""Weights of the kinds in a draw; 1 where not given."""


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A function, its mutant, and cases that were executed with both."""

    function: Function
    broken: tuple[str, ...]
    line: int
    """Index of the mutated line in the function."""
    kind: Kind
    shown: Case
    """The issue's example."""
    sentence: str
    """The issue's words for the symptom; may be empty."""
    visible: tuple[Case, ...]
    """Cases of the visible test; the shown one is among them."""
    failing: tuple[Case, ...]
    """Hidden cases that the mutant fails."""
    passing: tuple[Case, ...]
    """Hidden cases that the mutant passes."""
    decoys: tuple[tuple[int, str], ...]
    """Wrong edits: line index and new text."""


@dataclass(frozen=True, kw_only=True)
class _Rival:
    """Another one-line edit of the mutant."""

    edit: Edit
    text: str
    right: tuple[bool, ...]
    """Whether it gives the expected value, by call."""


def find_defect(rng: Random, function: Function, *, quiet: bool) -> Defect | None:
    """Return a decidable defect of a function; None if a few tries found none.

    `quiet` asks for a mutant that raises on no example, so that two copies can be called side by side.
    """
    known = probe(rng, function, want=20, tries=30)
    if known is None:
        return None
    for edit in _order(rng, edits(function))[:3]:
        broken = edit.apply(function.lines)
        cases = known.compare(load("\n".join(broken), function.name))
        if cases is None or (quiet and any(c.actual.endswith("Error") for c in cases)):
            continue
        failing = [i for i, case in enumerate(cases) if case.shows]
        if len(failing) < 3:
            continue
        found = _decide(rng, known, cases, failing, edit, broken)
        if found is not None:
            return found
    return None


def _order(rng: Random, found: tuple[Edit, ...]) -> list[Edit]:
    """Order edits at random, a kind's first edits before any kind's second."""
    kinds: dict[Kind, list[Edit]] = {}
    for edit in found:
        kinds.setdefault(edit.kind, []).append(edit)
    keyed: list[tuple[float, int, Edit]] = []
    for kind, its in kinds.items():
        rng.shuffle(its)
        point = rng.random() ** (1.0 / _WEIGHTS.get(kind, 1.0))
        keyed += [(n - point, len(keyed), edit) for n, edit in enumerate(its)]
    return [row[2] for row in sorted(keyed, key=lambda row: row[:2])]


def _decide(
    rng: Random, known: Probe, cases: list[Case], failing: list[int], edit: Edit, broken: tuple[str, ...]
) -> Defect | None:
    """Choose the example on which the fewest other edits would also succeed, and the words that rule those out."""
    function = known.function
    rivals = _rivals(known, edit, broken)
    doubtful = [r for r in rivals if not all(r.right)]
    short = sorted(failing, key=lambda i: len(cases[i].args) + len(cases[i].expected) + len(cases[i].actual))[:8]
    counts = {i: sum(r.right[i] for r in doubtful) for i in short}
    best = min(counts.values())
    shown = next(i for i in short if counts[i] == best)
    left = [r for r in doubtful if r.right[shown]]
    sentence = _sentence(rng, cases[shown], edit, left)
    if sentence is None:
        return None
    decoys = [r for r in rivals if not r.right[shown]]
    rng.shuffle(decoys)
    passing = [i for i, case in enumerate(cases) if not case.shows]
    hidden = [i for i in failing if i != shown]
    rng.shuffle(hidden)
    visible = [cases[shown]] + [cases[i] for i in (passing[:1] or hidden[-1:])]
    rng.shuffle(visible)
    return Defect(
        function=function,
        broken=broken,
        line=edit.line,
        kind=edit.kind,
        shown=cases[shown],
        sentence=sentence,
        visible=tuple(visible),
        failing=(cases[shown], *(cases[i] for i in hidden[:4])),
        passing=tuple(cases[i] for i in passing[:3]),
        decoys=tuple((r.edit.line, r.text) for r in decoys[:4]),
    )


def _rivals(known: Probe, edit: Edit, broken: tuple[str, ...]) -> list[_Rival]:
    """Return the other one-line edits of the mutant that a reader might think of, with what they would give."""
    out: list[_Rival] = []
    texts = {(edit.line, known.function.lines[edit.line]), (edit.line, broken[edit.line])}
    for other in edits(known.function, broken):
        lines = other.apply(broken)
        text = lines[other.line]
        if (other.line, text) in texts:
            continue
        texts.add((other.line, text))
        callee = load("\n".join(lines), known.function.name)
        out.append(_Rival(edit=other, text=text, right=_results(known, callee)))
    return out


def _results(known: Probe, callee: Callee) -> tuple[bool, ...]:
    results: list[bool] = []
    for args, expected in zip(known.calls, known.expected, strict=True):
        try:
            value = outcome(callee, args)
        except ODD as error:
            value = Raised(name=type(error).__name__)
        results.append(value == expected)
    return tuple(results)


def _sentence(rng: Random, case: Case, edit: Edit, left: list[_Rival]) -> str | None:
    """Return the issue's words for the symptom, '' for none, None if no words single the repair out."""
    if edit.kind == Kind.MISSING_STEP:  # what is gone cannot be read off the code
        return in_words(rng, edit.hint, named=1.0)
    if not left:
        pick = rng.random()
        if pick < 0.05:
            return ""
        if pick < 0.12:
            return behaviour(rng, case)
        return in_words(rng, edit.hint, named=0.6)
    key = hint_key(edit.hint)
    same = [r for r in left if r.edit.kind == edit.kind]
    if not same:
        return in_words(rng, edit.hint, named=0.6)
    if len(same) == 1 and ("|" in edit.hint or key in ("initial",)) and len(left) < 4:
        return in_words(rng, edit.hint, named=1.0)
    return None
