"""The experiment brief: what a proposer should know, as text for a prompt, within a budget of tokens.

Blocks are taken by their worth while they fit: the ranked methods, what failed here, edits and passages for the best,
the map of the code, the other edits and passages. What other people or agents wrote stands in quotations that it cannot
close.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from looper.errors import ConfigError
from looper.memory.code_map import code_map
from looper.memory.ingestion.untrusted import delimited, one_line
from looper.memory.suggestion import Entry, Passage, Tokens
from looper.records import Record

PASSAGE = 500
"""Letters of a passage that the brief shows."""
CLAIMS = 2
"""Claims of a method that the brief shows."""
MAP_SHARE = 0.2
"""Share of the budget that the map of the code may take."""
FIRST = 2
"""Edits and passages that come before the map."""
TITLES = {
    "head": "",
    "map": "## The code now",
    "methods": "## Methods to try, best first",
    "failures": "## Tried here without a gain",
    "edits": "## Edits, each a search text that is in the code once, and its replacement",
    "passages": "## From the sources",
}
"""Sections in the order of the text."""


class Brief(Record):
    """The text, what it costs, and how much of the answer it holds."""

    text: str
    tokens: Tokens
    methods: int
    passages: tuple[int, ...]
    """Chunks that are quoted."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a brief is made of."""

    goal: str
    place: str
    """Scope, campaign, and the noise there."""
    query: str
    reused: bool = False
    """Whether the query was asked before and led to gains."""
    code: str
    entries: Sequence[Entry]
    failures: Sequence[str]
    passages: Sequence[Passage]
    budget: int
    tokens: Callable[[str], int]
    counted_by: str
    path: str = "train.py"


def write(draft: Draft) -> Brief:
    """Return the brief. Raises ConfigError for a budget that does not hold the goal and one method."""
    page = _Page(draft.budget, draft.tokens)
    needed = [("head", _head(draft)), *[("methods", _method(entry)) for entry in draft.entries[:1]]]
    if not all(page.add(section, block) for section, block in needed):
        raise ConfigError(
            f"a budget of {draft.budget} tokens does not hold the goal and one method; give at least "
            f"{draft.tokens(_rendered(needed))}, usually 2000"
        )
    methods = len(needed) - 1
    for entry in draft.entries[1:]:
        if not page.add("methods", _method(entry)):
            break
        methods += 1
    _add_failures(page, draft)
    edits = [entry for entry in draft.entries[:methods] if entry.recipe]
    quoted = _add_help(page, edits[:FIRST], draft.passages[:FIRST])
    _add_map(page, draft)
    quoted += _add_help(page, edits[FIRST:], draft.passages[FIRST:])
    text = _rendered(page.blocks)
    sections = {
        name: draft.tokens(_rendered([block for block in page.blocks if block[0] == name]))
        for name in TITLES
        if any(block[0] == name for block in page.blocks)
    }
    tokens = Tokens(brief=draft.tokens(text), sections=sections, counted_by=draft.counted_by)
    return Brief(text=text, tokens=tokens, methods=methods, passages=tuple(quoted))


@dataclass(frozen=True)
class _Page:
    """Blocks that fit so far, each with its section."""

    budget: int
    tokens: Callable[[str], int]
    blocks: list[tuple[str, str]] = field(default_factory=list)

    def add(self, section: str, block: str) -> bool:
        """Add a block if the whole still fits."""
        if self.tokens(_rendered([*self.blocks, (section, block)])) > self.budget:
            return False
        self.blocks.append((section, block))
        return True


def _rendered(blocks: Sequence[tuple[str, str]]) -> str:
    parts = []
    for section, title in TITLES.items():
        own = [block for name, block in blocks if name == section]
        if own:
            parts.append("\n".join([title, *own] if title else own))
    return "\n\n".join(parts) + "\n"


def _head(draft: Draft) -> str:
    lines = [
        "# Experiment brief",
        f"Goal: {one_line(draft.goal)}",
        one_line(draft.place),
        "Lower is better for the metric. Effects are improvements, so positive is better; what sources report are "
        "changes of their own metric.",
        _searched(draft),
        "" if draft.entries else "No method is left to suggest: the code has them all, or they do not apply to it.",
    ]
    return "\n".join(line for line in lines if line)


def _searched(draft: Draft) -> str:
    if not draft.query:
        return ""
    query = one_line(draft.query)
    # The words of a reused query are those of an earlier proposer, whoever that was.
    told = f"{json.dumps(query, ensure_ascii=False)} (asked before, and it led to gains)" if draft.reused else query
    return f"Searched the memory for: {told}"


def _method(entry: Entry) -> str:
    lines = [
        f"{entry.rank}. {one_line(entry.method)}" + (f": {entry.name} [{entry.category}]" if entry.bundled else "")
    ]
    lines.append(f"   {_evidence(entry)}")
    claims = [
        f"{claim.effect:+g} {claim.unit} ({'; '.join(filter(None, (claim.scale, claim.source, claim.locator)))})"
        for claim in entry.claims[:CLAIMS]
    ]
    claims += [f"{len(entry.claims) - CLAIMS} more"] if len(entry.claims) > CLAIMS else []
    told = [f"sources report changes of {'; '.join(claims)}"] if claims else []
    if entry.bundled:
        lines += [f"   {line}" for line in (entry.summary, *told, *(f"note: {one_line(note)}" for note in entry.notes))]
    else:
        words = [entry.name, entry.summary, *told, *(f"note: {note}" for note in entry.notes)]
        lines.append(delimited("\n".join(words), f"method {entry.method}"))
    edits = "they fit the code, see below or the recipe" if entry.recipe else f"none: {one_line(entry.recipe_note)}"
    lines.append(f"   edits: {edits}")
    return "\n".join(lines)


def _evidence(entry: Entry) -> str:
    guess = f"best guess {entry.effect:+.4g} ± {entry.effect_sd:.2g}, P(improve) {entry.p_improve:.2f}"
    away = f" ({entry.elsewhere} elsewhere)" if entry.elsewhere else ""
    if not entry.tries:
        return f"never tried here{away}; {guess}"
    mean = "no measured effect" if entry.mean_effect is None else f"mean effect {entry.mean_effect:+.4g}"
    crashes = f", {entry.crashes} crashed" if entry.crashes else ""
    return f"{entry.tries} {'try' if entry.tries == 1 else 'tries'} here{away}, {mean}{crashes}; {guess}"


def _edits(entry: Entry) -> str:
    text = "\n".join(json.dumps(edit, ensure_ascii=False) for edit in entry.recipe)
    if entry.bundled:
        return f"{one_line(entry.method)}:\n{text}"
    return delimited(text, f"edits of method {entry.method}")


def _passage(passage: Passage) -> str:
    text = passage.text if len(passage.text) <= PASSAGE else passage.text[:PASSAGE] + " ..."
    return delimited(text, f"{passage.title} ({passage.paper}), {passage.locator}")


def _add_help(page: _Page, edits: Sequence[Entry], passages: Sequence[Passage]) -> list[int]:
    """Add edits and passages as far as they fit; returns the chunks that are quoted."""
    for entry in edits:
        page.add("edits", _edits(entry))
    return [one.chunk for one in passages if page.add("passages", _passage(one))]


def _add_failures(page: _Page, draft: Draft) -> None:
    """Add as many of the failures as fit, the newest."""
    for count in range(len(draft.failures), 0, -1):
        if page.add("failures", delimited("\n".join(draft.failures[:count]), "the log of this memory")):
            return


def _add_map(page: _Page, draft: Draft) -> None:
    """Add the map of the code, a smaller one if there is little room."""
    room = int(draft.budget * MAP_SHARE)
    while draft.code and room >= 32:
        text = code_map({draft.path: draft.code}, goal=f"{draft.goal} {draft.query}", budget=room, tokens=draft.tokens)
        if text and page.add("map", text.rstrip("\n")):
            return
        room //= 2
