"""A map of code for a prompt: the definitions that matter most for a goal, with what they call, in a budget of tokens.

Definitions and constants are nodes; one that mentions another has an edge to it. As in aider's
repository map, an edge weighs the square root of the mentions, ten times that for names that the goal
speaks of and a tenth for private names and those that many places define; PageRank, which starts
over at the nodes that the goal speaks of, orders the nodes.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from looper.memory.definitions import Entry, entries_of

SALIENT = 10.0
"""Weight of names that the goal speaks of."""
COMMON = 0.1
"""Weight of private names, and of those that more than `MANY` places define."""
MANY = 5
DAMPING = 0.85
"""Share of PageRank that follows edges; the rest starts over."""
SHOWN_CALLS = 6
"""Most callees that an entry names."""

_IDLE = frozenset("a an and at by for from how in is it of on or the to with".split())
_WORD = re.compile(r"[A-Za-z][a-z0-9]+|[A-Z0-9]+(?![a-z])")


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has: four characters each, the usual rule of thumb."""
    return math.ceil(len(text) / 4)


def code_map(
    files: Mapping[str, str],
    *,
    goal: str = "",
    budget: int = 1024,
    tokens: Callable[[str], int] = estimated_tokens,
) -> str:
    """Return a map of files (path -> text) of at most `budget` tokens as `tokens` counts them.

    Python is read by the standard library, other languages by tree-sitter where the extra `code` is
    installed; a file that cannot be read is named with the reason. Raises ValueError for a budget
    below 1.
    """
    if budget < 1:
        raise ValueError(f"a budget of {budget} tokens holds nothing; give at least 1, usually 1024")
    entries: list[Entry] = []
    notes: dict[str, str] = {}
    for path in sorted(files):
        found, note = entries_of(path, files[path])
        entries += found
        if note:
            notes[path] = note
    scores = ranks(entries, goal)
    order = [entries[n] for n in np.argsort([-score for score in scores], kind="stable") if entries[n].head]
    links = _links(entries)
    least, most = 0, len(order)
    while least < most:  # the longest prefix of the ranking that fits
        middle = (least + most + 1) // 2
        if tokens(_rendered(order[:middle], links, notes)) <= budget:
            least = middle
        else:
            most = middle - 1
    text = _rendered(order[:least], links, notes)
    return text if tokens(text) <= budget else ""  # not even the notes fit


def ranks(entries: Sequence[Entry], goal: str) -> list[float]:
    """Return the PageRank of each entry; they sum to 1."""
    from scipy.sparse import csr_array

    if not entries:
        return []
    wanted = _words(goal)
    edges = _edges(entries, wanted)
    count = len(entries)
    start = np.array([SALIENT if wanted & _words(entry.name) else 1.0 for entry in entries])
    start /= start.sum()
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    flow = csr_array((list(edges.values()), (columns, rows)), shape=(count, count), dtype=float)  # (to, from)
    out = np.asarray(flow.sum(axis=0)).ravel()
    share = np.divide(1.0, out, out=np.zeros(count), where=out > 0)
    rank = start.copy()
    for _ in range(100):
        idle = rank[out == 0].sum()  # a definition that mentions nothing starts over
        new = DAMPING * (flow @ (rank * share) + idle * start) + (1 - DAMPING) * start
        moved = float(np.abs(new - rank).sum())
        rank = new
        if moved < 1e-9:
            break
    return [float(value) for value in rank]


def _edges(entries: Sequence[Entry], wanted: set[str]) -> dict[tuple[int, int], float]:
    """Return the weight of each edge from an entry to one that it mentions."""
    by_name = _by_name(entries)
    edges: dict[tuple[int, int], float] = defaultdict(float)
    for n, entry in enumerate(entries):
        for name, times in entry.mentions.items():
            targets = [target for target in by_name.get(name, ()) if target != n]
            weight = math.sqrt(times)
            weight *= SALIENT if wanted & _words(name) else 1.0
            weight *= COMMON if name.startswith("_") or len(targets) > MANY else 1.0
            for target in targets:
                edges[n, target] += weight
    return dict(edges)


def _by_name(entries: Sequence[Entry]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for n, entry in enumerate(entries):
        places[entry.last].append(n)
    return places


def _links(entries: Sequence[Entry]) -> dict[tuple[str, str], list[str]]:
    """Return what each entry calls among the entries, the most mentioned first."""
    known = set(_by_name(entries))
    return {
        (entry.path, entry.name): [
            name for name, _ in Counter(entry.calls).most_common() if name in known and name != entry.last
        ]
        for entry in entries
    }


def _rendered(chosen: Sequence[Entry], links: Mapping[tuple[str, str], list[str]], notes: Mapping[str, str]) -> str:
    """Write entries by file, in the order of their files' best, with their lines."""
    lines: list[str] = []
    for path in dict.fromkeys(entry.path for entry in chosen):
        lines.append(f"{path}:")
        for entry in sorted((one for one in chosen if one.path == path), key=lambda one: one.line):
            calls = links[entry.path, entry.name][:SHOWN_CALLS]
            lines.append(
                f"{entry.line:5d} {'  ' * entry.depth}{entry.head}" + (f"  # calls {', '.join(calls)}" * bool(calls))
            )
    lines += [f"{path}: {note}" for path, note in notes.items()]
    return "\n".join(lines) + "\n" if lines else ""


def _words(text: str) -> set[str]:
    """Return the words of a text or name in lower case, so that `sliding windows` is `SlidingWindow`."""
    words = {word.lower() for word in _WORD.findall(text) if len(word) > 1} - _IDLE
    return {word.removesuffix("s") if len(word) > 3 else word for word in words}
