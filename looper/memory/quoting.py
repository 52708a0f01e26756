"""What a brief quotes: passages of the sources, and the changes that did not help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from looper.errors import ConfigError
from looper.memory.rows import Decision, Evidence, Origin, Scope
from looper.memory.search import Searcher
from looper.memory.store import MemoryStore
from looper.memory.suggestion import Entry, Passage

READABLE = tuple(origin for origin in Origin if origin is not Origin.SESSION)
"""Sources whose passages a brief may quote; sessions of the repair agent are another matter."""
FAILURES = 6
PASSAGES = 4


def origins_of(names: Sequence[str]) -> tuple[Origin, ...]:
    """Return the kinds of sources that are named, all readable ones for no name. Raises ConfigError."""
    for name in names:
        if name not in list(READABLE):
            raise ConfigError(f"unknown source {name!r}; choose among {', '.join(READABLE)}")
    return tuple(Origin(name) for name in names) or READABLE


def find(
    store: MemoryStore,
    searcher: Searcher,
    text: str,
    *,
    limit: int,
    scope: Scope | None = None,
    papers: Iterable[str] | None = None,
    origins: Iterable[Origin] | None = READABLE,
    method: str = "",
) -> list[Passage]:
    """Return the passages that a search finds, best first."""
    found = []
    for hit in searcher.search(text, limit=limit, scope=scope, papers=papers, origins=origins):
        paper, chunk = store.chunk(hit.chunk)
        found.append(
            Passage(
                chunk=hit.chunk,
                paper=paper.id,
                origin=paper.origin,
                title=paper.title,
                locator=chunk.locator,
                text=chunk.body,
                score=hit.score,
                parts=hit.parts,
                method=method,
            )
        )
    return found


def passages_for(
    store: MemoryStore, searcher: Searcher, query: str, entries: Sequence[Entry], scope: Scope
) -> list[Passage]:
    """Return the best passage of each ranked method's sources, then those that answer the query."""
    found: dict[int, Passage] = {}
    ingested = {paper.id for paper in store.papers()}
    for entry in entries:
        papers = sorted({source.paper for source in entry.sources} & ingested)
        if papers and len(found) < PASSAGES:
            hits = find(store, searcher, f"{entry.name} {query}", limit=1, papers=papers, method=entry.method)
            found.update((one.chunk, one) for one in hits if one.chunk not in found)
    if ingested:
        for one in find(store, searcher, query, limit=PASSAGES, scope=scope):
            if len(found) < PASSAGES:
                found.setdefault(one.chunk, one)
    return list(found.values())


def failures_in(store: MemoryStore, evidence: Sequence[Evidence], scope: Scope, *, described: bool) -> list[str]:
    """Return lines on the last changes in this scope that did not help, the newest first, each change once."""
    lines: dict[str, str] = {}
    for e in reversed(evidence):
        if e.scope != scope or len(lines) == FAILURES:
            continue
        verdict = store.verdict(e.experiment)
        if verdict is None or verdict.decision is Decision.KEEP:
            continue
        words = store.experiment(e.experiment).description if described else ""
        what = ", ".join(e.methods) + (f" ({_short(words)})" if e.methods and words else "" if e.methods else words)
        delta = "" if e.delta is None else f" {e.delta:+.4g}"
        sigma = "" if e.delta is None else f" (sigma {'unknown' if e.sigma is None else format(e.sigma, '.2g')})"
        lines.setdefault(what, f"- {_short(what) or 'a change'}:{delta}{sigma} {verdict.decision}, {e.experiment}")
    return list(lines.values())


def _short(text: str, most: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most] + " ..."
