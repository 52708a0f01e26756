"""Logs of finished campaigns, read as arms whose outcome a policy has not seen yet."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from looper.errors import StoreError
from looper.memory.ranking.posterior import noise
from looper.memory.rows import Evidence, Status

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
"""Of a results.tsv."""
_COMMON = frozenset("a an and as at by for from in into of on or than the to try was with without".split())


@dataclass(frozen=True)
class Arm:
    """A logged experiment."""

    name: str
    subjects: tuple[str, ...]
    """Its methods; the words of its description where the log names no methods."""
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
    """Return the log that evidence makes; raises StoreError if sigma was neither measured nor given."""
    ordered = sorted(evidence, key=lambda e: (e.order, e.experiment))
    arms = tuple(
        Arm(e.experiment, e.methods or words_of(e.query), e.delta if e.status is Status.OK else None, e.query)
        for e in ordered
    )
    return _log(arms, sigma if sigma is not None else noise(ordered, "", 0.0) or None, None, "the evidence")


def read_log(path: Path, sigma: float | None = None) -> Log:
    """Read a results.tsv of autoresearch's columns, or a .jsonl file of evidence.

    In a results.tsv the first row is the baseline, and each other row's delta is against the best metric kept until
    then. Without a given sigma it is estimated from the spread of the deltas. Raises StoreError.
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
    rows = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise StoreError(f"{path} begins with {rows[0] if rows else 'nothing'}; a results.tsv has {list(COLUMNS)}")
    best = baseline = math.nan
    arms = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS):
            raise StoreError(f"{path}:{number} has {len(row)} columns instead of {len(COLUMNS)}")
        commit, metric_text, _, status, description = row
        try:
            metric = float(metric_text)
        except ValueError as error:
            raise StoreError(f"{path}:{number}: val_bpb {metric_text!r} is no number") from error
        if status not in ("keep", "discard", "crash"):
            raise StoreError(f"{path}:{number}: status {status!r} is none of keep, discard, crash")
        if math.isnan(best):
            if status == "crash" or not math.isfinite(metric):
                raise StoreError(f"{path}:{number}: the first row has to be a baseline that ran")
            best = baseline = metric
            continue
        ran = status != "crash" and math.isfinite(metric)
        arms.append(Arm(commit, words_of(description), best - metric if ran else None, description))
        if status == "keep":
            best = metric
    return _log(tuple(arms), sigma, baseline, str(path))


def _log(arms: tuple[Arm, ...], sigma: float | None, baseline: float | None, name: str) -> Log:
    deltas = [arm.delta for arm in arms if arm.delta is not None]
    if not deltas:
        raise StoreError(f"{name} holds no experiment that ran after the baseline; there is nothing to replay")
    found = sigma if sigma is not None else spread_of(deltas)
    if not found > 0.0:
        raise StoreError(f"the noise of {name} is {found}: give one measurement's standard deviation as sigma")
    return Log(arms, found, baseline)
