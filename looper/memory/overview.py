"""The memory at a glance: the last experiments as rows of a table, and what was tried how often with what result."""

from __future__ import annotations

from collections import defaultdict

from looper.memory.database import snapshot
from looper.memory.rows import Decision, Role, Scope, Status
from looper.memory.store import MemoryStore
from looper.proportions import wilson
from looper.records import Record

COUNTED = ("paper", "chunk", "method", "retrieval", "experiment", "outcome", "verdict", "event")


class LogRow(Record):
    """One experiment as a log shows it; None is unknown."""

    experiment: str
    at: float
    campaign: str
    number: int
    scope: Scope
    status: Status | None
    """None while it has no outcome."""
    metric_name: str
    metric: float | None
    delta: float | None
    decision: Decision | None
    methods: tuple[str, ...]
    """Those that are present in its diff."""
    description: str


class MethodRow(Record):
    """What became of the experiments with one method in their diff."""

    method: str
    tried: int
    kept: int
    discarded: int
    inconclusive: int
    """Neither a win nor a loss."""
    crashed: int
    open: int
    """Without a verdict."""
    win_rate: float | None
    """kept / (kept + discarded); None where neither happened. Crashes are no part of it, they are counted apart."""
    win_rate_low: float | None
    """Lower end of its 95% Wilson interval: 1 of 1 is worth less than 8 of 10."""


class Stats(Record):
    """Counts of a memory file."""

    counts: dict[str, int]
    """Rows of each table."""
    bytes: int
    """Of the database, without its write-ahead log."""
    methods: tuple[MethodRow, ...]
    """Methods that were tried, best lower end of the win rate first."""


def log(store: MemoryStore, *, campaign: str | None = None, limit: int = 20) -> list[LogRow]:
    """Return the last experiments, newest last."""
    clause = "" if campaign is None else "WHERE campaign = ?"
    with snapshot(store.connection, store.path):
        ids = store.connection.execute(
            f"SELECT id FROM experiment {clause} ORDER BY event DESC LIMIT ?",
            (limit,) if campaign is None else (campaign, limit),
        ).fetchall()
        return [_log_row(store, id) for (id,) in reversed(ids)]


def stats(store: MemoryStore) -> Stats:
    """Return counts, size, and the methods that were tried with their win rates."""
    with snapshot(store.connection, store.path):
        counts = {table: store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in COUNTED}
        pages, size = (store.connection.execute(f"PRAGMA {word}").fetchone()[0] for word in ("page_count", "page_size"))
        results: dict[str, list[str]] = defaultdict(list)
        for method, decision in store.connection.execute(
            "SELECT m.method, coalesce(v.decision, '') FROM experiment_method AS m "
            "LEFT JOIN verdict AS v ON v.experiment = m.experiment WHERE m.role = 'present'"
        ):
            results[method].append(decision)
    rows = [_method_row(method, decisions) for method, decisions in results.items()]
    rows.sort(key=lambda row: (-(row.win_rate_low or 0.0), -row.tried, row.method))
    return Stats(counts=counts, bytes=pages * size, methods=tuple(rows))


def _log_row(store: MemoryStore, id: str) -> LogRow:
    experiment, outcome, verdict = store.experiment(id), store.outcome(id), store.verdict(id)
    return LogRow(
        experiment=id,
        at=experiment.at,
        campaign=experiment.campaign,
        number=experiment.number,
        scope=experiment.scope,
        status=outcome.status if outcome else None,
        metric_name=outcome.metric_name if outcome else "",
        metric=outcome.metric if outcome else None,
        delta=verdict.delta if verdict else None,
        decision=verdict.decision if verdict else None,
        methods=tuple(sorted(name for name, role in experiment.methods.items() if role is Role.PRESENT)),
        description=experiment.description,
    )


def _method_row(method: str, decisions: list[str]) -> MethodRow:
    kept, discarded = decisions.count(Decision.KEEP), decisions.count(Decision.DISCARD)
    judged = kept + discarded
    return MethodRow(
        method=method,
        tried=len(decisions),
        kept=kept,
        discarded=discarded,
        inconclusive=decisions.count(Decision.INCONCLUSIVE),
        crashed=decisions.count(Decision.CRASH),
        open=decisions.count(""),
        win_rate=kept / judged if judged else None,
        win_rate_low=wilson(kept, judged)[0] if judged else None,
    )
