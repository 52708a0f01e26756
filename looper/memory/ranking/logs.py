"""Logs of finished campaigns, read as arms whose outcome a policy has not seen yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from looper.errors import StoreError
from looper.memory.ingestion.results_table import read_table
from looper.memory.ranking.posterior import noise
from looper.memory.rows import Decision, Evidence, Status

_COMMON = frozenset("a an and as at by for from in into of on or than the to try was with without".split())


@dataclass(frozen=True)
class Arm:
    """A logged experiment."""

    name: str
    subjects: tuple[str, ...]
    """Its methods; the words of its description, or of the query that it followed, where the log names no methods."""
    delta: float | None
    """Improvement over its parent, positive is better; None for a crash."""
    text: str = ""


@dataclass(frozen=True)
class Log:
    """The arms of one campaign in the order in which they were tried."""

    arms: tuple[Arm, ...]
    sigma: float
    """Noise of one delta."""
    baseline: float | None = None
    """Metric of the first row; None where only differences are known."""
    notes: tuple[str, ...] = ()
    """What is odd about the table, a sentence each."""


def words_of(text: str) -> tuple[str, ...]:
    """Return the words that tell descriptions apart: lower case, no numbers, no common words, each once."""
    found = re.findall(r"[a-z][a-z0-9]+", text.lower().replace("_", " "))
    return tuple(dict.fromkeys(word for word in found if word not in _COMMON))


def spread_of(deltas: Sequence[float]) -> float:
    """Return the standard deviation of the bulk: 1.4826 times the median distance from the median.

    It holds the spread of true effects as well as the noise, so it is an upper estimate of sigma.
    """
    middle = median(deltas)
    return 1.4826 * median(abs(delta - middle) for delta in deltas)


def log_of(evidence: Sequence[Evidence], sigma: float | None = None) -> Log:
    """Return the log that evidence makes: each experiment that was compared with its parent or failed is an arm.

    Sigma is the one given, else that of the verdicts, else the spread of the deltas. Raises StoreError for evidence of
    several scopes or metrics, whose differences cannot be added up, and for none.
    """
    ordered = sorted(evidence, key=lambda e: (e.order, e.experiment))
    tried = [e for e in ordered if e.delta is not None or e.status is not Status.OK]
    _require_one(sorted({e.scope for e in tried}), "scopes", "choose one with --scope")
    measured = sorted({e.metric_name for e in tried if e.delta is not None})
    _require_one(measured, "metrics", "choose a campaign or scope that has one")
    arms = tuple(
        Arm(
            e.experiment,
            e.methods or words_of(e.description) or words_of(e.query),
            e.delta if e.status is Status.OK else None,
            e.description or e.query,
        )
        for e in tried
    )
    return _log(arms, sigma if sigma is not None else noise(ordered, "", 0.0) or None, None, "the evidence")


def _require_one(found: Sequence[str], what: str, advice: str) -> None:
    if len(found) > 1:
        raise StoreError(f"the evidence is of {len(found)} {what}, {', '.join(map(repr, found))}; {advice}")


def read_log(path: Path, sigma: float | None = None) -> Log:
    """Read a results table as `import` does, or a .jsonl file of evidence.

    In a table the first row is the baseline, and each other row's delta is against the best metric kept until then.
    Without a given sigma it is estimated from the spread of the deltas. Raises StoreError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the log {path} cannot be read: {error}") from error
    if path.suffix == ".jsonl":
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                rows.append(Evidence.model_validate_json(line))
            except ValidationError as error:
                raise StoreError(f"{path}:{number} is no evidence: {error}") from error
        return log_of(rows, sigma)
    return _tsv(path, text, sigma)


def _tsv(path: Path, text: str, sigma: float | None) -> Log:
    rows, notes = read_table(text, str(path))
    first = rows[0]
    if first.metric is None:
        raise StoreError(f"{path}:{first.line}: the first row has to be a baseline that ran")
    best = first.metric
    arms = []
    for row in rows[1:]:
        delta = None if row.metric is None else best - row.metric
        arms.append(Arm(row.commit, words_of(row.description), delta, row.description))
        # Where the table does not say what was kept, a lower metric was.
        kept = row.decision is Decision.KEEP or (row.decision is None and delta is not None and delta > 0.0)
        if kept and row.metric is not None:
            best = row.metric
    return replace(_log(tuple(arms), sigma, first.metric, str(path)), notes=tuple(notes))


def _log(arms: tuple[Arm, ...], sigma: float | None, baseline: float | None, name: str) -> Log:
    deltas = [arm.delta for arm in arms if arm.delta is not None]
    if not deltas:
        raise StoreError(f"{name} holds no experiment that ran after the baseline; there is nothing to replay")
    found = sigma if sigma is not None else spread_of(deltas)
    if not found > 0.0:
        raise StoreError(f"the noise of {name} is {found}: give one measurement's standard deviation as sigma")
    return Log(arms, found, baseline)
