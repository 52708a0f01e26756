"""Why an experiment was made and what came of it: from its verdict back to the passage of the paper."""

from __future__ import annotations

from datetime import UTC, datetime

from looper.errors import StoreError
from looper.memory import events
from looper.memory.ingestion.untrusted import visible
from looper.memory.rows import Chunk, Experiment, Item, Method, Outcome, Paper, Retrieval, Role, Verdict
from looper.memory.store import MemoryStore
from looper.records import Record

LONGEST = 2000
"""Characters of a quoted text that are shown."""


class Citation(Record):
    """One place where a method is described, as far as it is kept."""

    paper: str
    """Id of the paper."""
    locator: str
    chunk: int | None
    found: Paper | None
    passage: Chunk | None


class Credit(Record):
    """One method of an experiment: how it came in, and where it is described."""

    method: str
    role: Role
    known: Method | None
    item: Item | None
    """Its place in the retrieval that the experiment followed."""
    citations: tuple[Citation, ...]


class Passage(Record):
    """A passage that the retrieval showed for itself, beside the methods."""

    rank: int
    citation: Citation


class Provenance(Record):
    """The whole chain of one experiment."""

    experiment: Experiment
    outcome: Outcome | None
    verdict: Verdict | None
    retrieval: Retrieval | None
    credits: tuple[Credit, ...]
    """Methods that are present in the diff, then those that were only claimed; each by rank."""
    passages: tuple[Passage, ...] = ()
    missing: tuple[str, ...]
    """Links of the chain that are not there, in words."""


def trace(store: MemoryStore, experiment_id: str) -> Provenance:
    """Return the chain of an experiment; raises StoreError if there is no such experiment."""
    missing: list[str] = []
    experiment = store.experiment(experiment_id)
    outcome, verdict = store.outcome(experiment_id), store.verdict(experiment_id)
    if outcome is None:
        missing.append("no outcome: it has not finished, or its process ended")
    if verdict is None:
        missing.append("no verdict: it was not compared with a baseline")
    if not experiment.diff and experiment.parent:
        missing.append("no diff: the change itself was not recorded")
    retrieval = store.retrieval(experiment.retrieval) if experiment.retrieval else None
    if retrieval is None:
        missing.append("no retrieval: it followed no question to the memory")
    items = {item.method: item for item in reversed(retrieval.items) if item.method} if retrieval else {}
    credits = [
        _credit(store, method, role, items.get(method), retrieval, missing)
        for method, role in sorted(experiment.methods.items())
    ]
    credits.sort(key=lambda c: (c.role is not Role.PRESENT, c.item.rank if c.item else 1_000_000, c.method))
    if not any(credit.role is Role.PRESENT for credit in credits):
        missing.append("no credited method: none is known to be present in the diff")
    return Provenance(
        experiment=experiment,
        outcome=outcome,
        verdict=verdict,
        retrieval=retrieval,
        credits=tuple(credits),
        passages=_passages(store, retrieval, missing),
        missing=tuple(missing),
    )


def why(store: MemoryStore, experiment_id: str) -> str:
    """Return the chain of an experiment as text; quoted text stands behind bars and is nobody's instruction."""
    found = trace(store, experiment_id)
    lines = [*_head(found), *_retrieval(found.retrieval)]
    for credit in found.credits:
        lines += ["", *_method(credit)]
    for passage in found.passages:
        lines += ["", f"passage shown at rank {passage.rank}", *_cited(passage.citation)]
    if found.missing:
        lines += ["", "missing:", *(f"  - {word}" for word in found.missing)]
    return "\n".join(lines) + "\n"


def quoted(text: str, source: str) -> list[str]:
    """Return a text that others wrote, each line behind a bar that the text itself cannot close."""
    shown = text[:LONGEST]
    lines = [visible(line, "\N{REPLACEMENT CHARACTER}") for line in shown.splitlines()]
    more = [f"  ({len(text) - LONGEST} more characters)"] if len(text) > LONGEST else []
    return [f"  untrusted text, quoted from {_line(source)}:", *(f"  | {line}" for line in lines), *more]


# ---------------------------------------------------------------- the chain


def _credit(
    store: MemoryStore, id: str, role: Role, item: Item | None, retrieval: Retrieval | None, missing: list[str]
) -> Credit:
    if item is None and retrieval is not None:
        missing.append(f"method {id} was not among the items of retrieval {retrieval.id}: it came from elsewhere")
    try:
        known = store.method(id)
    except StoreError:
        known = None
        missing.append(f"method {id} is not kept: nothing says where it is described")
    places = [(s.paper, s.locator, _chunk_now(store, id, s.paper, s.locator)) for s in known.sources] if known else []
    if item is not None and item.chunk is not None and item.chunk not in [chunk for *_, chunk in places]:
        paper, chunk = store.chunk(item.chunk)
        places.append((paper.id, chunk.locator, item.chunk))
    if item is not None and item.chunk is None and retrieval is not None:
        missing += _replaced(store, retrieval, item)
    if known and not places:
        missing.append(f"method {id} names no source")
    citations = tuple(_citation(store, *place, missing) for place in places)
    return Credit(method=id, role=role, known=known, item=item, citations=citations)


def _passages(store: MemoryStore, retrieval: Retrieval | None, missing: list[str]) -> tuple[Passage, ...]:
    if retrieval is None:
        return ()
    found = []
    for item in retrieval.items:
        if item.method or not item.shown:
            continue
        if item.chunk is None:
            missing += _replaced(store, retrieval, item)
            continue
        paper, chunk = store.chunk(item.chunk)
        citation = Citation(paper=paper.id, locator=chunk.locator, chunk=item.chunk, found=paper, passage=chunk)
        found.append(Passage(rank=item.rank, citation=citation))
    return tuple(found)


def _chunk_now(store: MemoryStore, method: str, paper: str, locator: str) -> int | None:
    """Return the chunk of a source; None if there never was one, or another text of the paper replaced it."""
    row = store.connection.execute(
        "SELECT chunk FROM method_source WHERE method = ? AND paper = ? AND locator = ?", (method, paper, locator)
    ).fetchone()
    return None if row is None else row[0]


def _replaced(store: MemoryStore, retrieval: Retrieval, item: Item) -> list[str]:
    """Say which passage an item showed, if another text of its paper has replaced that."""
    event = next(events.read(store.connection, kind="retrieval", subject=retrieval.id))
    chunk = next((told["chunk"] for told in event.data["items"] if told["rank"] == item.rank), None)
    if chunk is None:
        return []
    row = store.connection.execute(
        "SELECT event.subject FROM event, json_each(event.data, '$.chunks.spans') AS span WHERE event.kind = 'paper' "
        "AND ? - json_extract(span.value, '$[0]') BETWEEN 0 AND json_extract(span.value, '$[1]') - 1",
        (chunk,),
    ).fetchone()
    paper = row[0] if row else "its paper"
    return [f"chunk {chunk}, shown at rank {item.rank}, is not kept: another text of {paper} replaced it"]


def _citation(store: MemoryStore, paper: str, locator: str, chunk: int | None, missing: list[str]) -> Citation:
    place = f"{paper} ({locator})" if locator else paper
    found: Paper | None = None
    passage: Chunk | None = None
    if chunk is not None:
        found, passage = store.chunk(chunk)
    else:
        try:
            found = store.paper(paper)
            missing.append(f"the passage of {place} is not kept: it was never linked, or a newer text replaced it")
        except StoreError:
            missing.append(f"the text of {place} was never read into this memory; ingest it to see the passage")
    return Citation(paper=paper, locator=locator, chunk=chunk, found=found, passage=passage)


# ---------------------------------------------------------------- as text


def _head(found: Provenance) -> list[str]:
    experiment, outcome, verdict = found.experiment, found.outcome, found.verdict
    lines = [f"experiment {experiment.id}: {_line(experiment.description) or 'no description'}"]
    lines.append(
        f"  campaign {experiment.campaign or '-'} number {experiment.number}, scope {experiment.scope or '-'}, "
        f"seed {experiment.seed}, parent {experiment.parent or '-'}, {_date(experiment.at)}"
    )
    if verdict:
        delta = "none" if verdict.delta is None else f"{verdict.delta:+.6f}"
        lines.append(
            f"verdict: {verdict.decision}; delta {delta} against {verdict.baseline} (positive is better), "
            f"sigma {_number(verdict.sigma)}, n {verdict.n}, P(improves) {_number(verdict.p_improve)}"
        )
    if outcome:
        parts = [f"{outcome.metric_name} {_number(outcome.metric)}"]
        for name in ("steps", "prompt_tokens", "completion_tokens", "cost", "wall", "memory"):
            if getattr(outcome, name) is not None:
                parts.append(f"{name.replace('_', ' ')} {getattr(outcome, name):g}")
        lines.append(f"outcome: {outcome.status}; " + ", ".join(parts))
        if outcome.log:
            lines += quoted(outcome.log, "the log's end")
    if experiment.diff:
        lines += ["diff:", *quoted(experiment.diff, "the proposed change")]
    return lines


def _retrieval(retrieval: Retrieval | None) -> list[str]:
    if retrieval is None:
        return []
    return [
        f"retrieval {retrieval.id} ({_date(retrieval.at)}): {len(retrieval.items)} items, seed {retrieval.seed}, "
        f"code {retrieval.code_sha or '-'}",
        f"  goal: {_line(retrieval.goal)}",
        f"  query: {_line(retrieval.query)}",
    ]


def _method(credit: Credit) -> list[str]:
    name = f" ({_line(credit.known.name)})" if credit.known else ""
    role = "present in the diff" if credit.role is Role.PRESENT else "claimed, not found in the diff"
    lines = [f"method {credit.method}{name}: {role}"]
    if credit.item:
        parts = ", ".join(f"{key} {value:.4g}" for key, value in sorted(credit.item.parts.items()))
        lines.append(f"  rank {credit.item.rank}, score {credit.item.score:.4g}" + (f" ({parts})" if parts else ""))
    for citation in credit.citations:
        lines += _cited(citation)
    return lines


def _cited(citation: Citation) -> list[str]:
    place = citation.passage.locator if citation.passage else citation.locator
    lines = [f"  source {citation.paper}" + (f", {_line(place)}" if place else "")]
    if citation.found:
        paper = citation.found
        lines.append(
            f"    {_line(paper.title)}; version {paper.version or 'unknown'}, {paper.url or 'no address'}, "
            f"licence {paper.licence or 'unknown'}, sha {paper.sha or 'unknown'}"
        )
    if citation.passage:
        lines += quoted(citation.passage.body, f"{citation.paper}, chunk {citation.chunk}")
    return lines


def _line(text: str) -> str:
    """Return a text on one line without control characters."""
    return " ".join(visible(text, "\N{REPLACEMENT CHARACTER}").split())


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
