"""Campaigns of autoresearch and its forks: `results.tsv` and the git history become experiments.

A kept change is a commit of the branch. A discarded one was taken back with `git reset`: its commit is found as long
as git has not swept it up, in the reflog or loose; afterwards its diff is lost, and the notes say so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looper.errors import ConfigError, StoreError
from looper.memory.ingestion.git_calls import git, line
from looper.memory.ingestion.git_history import History, read_history
from looper.memory.ingestion.results_table import Row, read_table
from looper.memory.rows import Decision, Experiment, Outcome, Scope, Status, Verdict
from looper.memory.syntax import Code

if TYPE_CHECKING:
    from looper.memory.store import MemoryStore

LONGEST_DIFF = 200_000
"""Letters of a diff that are kept; nothing that an agent writes by hand comes near."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What a repository tells of a campaign, in the order of its table."""

    name: str
    experiments: tuple[Experiment, ...]
    outcomes: tuple[Outcome, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    """What is odd, missing or lost, a sentence each."""

    def add_to(self, store: MemoryStore) -> int:
        """Write what the store does not hold yet; return the number of experiments that were new or not complete.

        Each experiment is written whole or not at all, and what an earlier import left without its result gets it.
        """
        known = {experiment.id for experiment in store.experiments(campaign=self.name)}
        outcomes = {outcome.experiment: outcome for outcome in self.outcomes}
        verdicts = {verdict.experiment: verdict for verdict in self.verdicts}
        new = 0
        for experiment in self.experiments:
            id = experiment.id
            with store.transaction():
                fresh = id not in known
                if fresh:
                    store.add_experiment(experiment)
                told = store.outcome(id)
                if told is None:
                    store.add_outcome(outcomes[id])
                judged = id not in verdicts or store.verdict(id) is not None
                if not judged:
                    store.add_verdict(verdicts[id])
            new += fresh or told is None or not judged
        return new


def read_campaign(
    folder: Path,
    *,
    table: str = "results.tsv",
    code: str = "train.py",
    settings: str = "prepare.py",
    campaign: str = "",
    scope: Scope = "",
    sigma: float | None = None,
) -> Campaign:
    """Read the campaign that a working tree holds.

    `table`, `code` and `settings` are its files: results, what the agent edits, and the frozen half with TIME_BUDGET.
    `sigma` is the noise of one measurement where it is known; a log of single runs cannot tell it. The campaign is
    named after the branch if nothing else is said. Raises StoreError without a table, ConfigError for a sigma that is
    no noise.
    """
    if sigma is not None and not 0.0 < sigma < math.inf:
        raise ConfigError(f"sigma={sigma}; give one result's standard deviation, above 0, or leave it out if unknown")
    text, at = _table(folder, table)
    rows, notes = read_table(text, table)
    name = campaign or line("symbolic-ref", "--quiet", "--short", "HEAD", cwd=folder) or folder.resolve().name
    names = [row.commit for row in rows]
    history = read_history(folder, names, code=code, settings=settings)
    if before := _before_the_first_change(rows, history):
        notes.append(f"line {rows[0].line}: {names[0]!r} is taken for {before[:7]}, the commit before the first change")
        history = read_history(folder, [before, *names[1:]], code=code, settings=settings)
    experiments: list[Experiment] = []
    verdicts = []
    kept: list[int] = []
    for number, row in enumerate(rows):
        decision = row.decision or _judged(row, [rows[n].metric for n in kept])
        if row.decision is None:
            notes.append(f"line {row.line}: the status is judged by the metric: {decision}")
        parent = history.parent(number, kept)
        above = experiments[parent] if parent is not None else None
        made = _experiment(history, number, row, above, parent, notes)
        # Without its commit, a row's time is that of the row before.
        when = made.at or (experiments[-1].at if experiments else at)
        experiments.append(
            made.model_copy(update={"at": when, "campaign": name, "scope": scope, "id": f"{name}:{made.id}"})
        )
        # A change on top of one that crashed, or was not taken back, is still compared with something measured.
        against = parent if parent is not None and rows[parent].metric is not None else kept[-1] if kept else None
        if against is not None:
            verdicts.append(
                _verdict(experiments[-1].id, experiments[against].id, row, rows[against].metric, decision, sigma)
            )
        if decision is Decision.KEEP and row.metric is not None:
            kept.append(number)
    outcomes = [_outcome(experiment.id, row) for experiment, row in zip(experiments, rows, strict=True)]
    return Campaign(
        name=name,
        experiments=tuple(experiments),
        outcomes=tuple(outcomes),
        verdicts=tuple(verdicts),
        notes=tuple(notes),
    )


def _table(folder: Path, table: str) -> tuple[str, float]:
    """Return the table's text and when it was last written: from the working tree, or from the commit."""
    file = folder / table
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace"), file.stat().st_mtime
    out = git("cat-file", "blob", f"HEAD:{table}", cwd=folder, okay=(128,)) if folder.is_dir() else None
    if out is None:
        raise StoreError(f"{folder} holds no {table}; give the working tree of a campaign, or the table's name")
    when = line("show", "--no-patch", "--format=%ct", "HEAD", cwd=folder)
    return out.decode("utf-8", errors="replace"), float(when)


def _before_the_first_change(rows: Sequence[Row], history: History) -> str:
    """Return the commit of a baseline whose row names none: what the first change that is still there grew from."""
    for number, commit in enumerate(history.commits):
        if commit:
            return history.parents.get(commit, "") if number else ""
        if number and rows[number].decision is not Decision.DISCARD and rows[number].metric is not None:
            break  # a kept change that is lost lies between
    return ""


def _judged(row: Row, kept: Sequence[float | None]) -> Decision:
    """Decide as the rules of a campaign do where its table does not say: lower is kept."""
    best = min((metric for metric in kept if metric is not None), default=None)
    if row.metric is None:
        return Decision.CRASH
    return Decision.KEEP if best is None or row.metric < best else Decision.DISCARD


def _experiment(
    history: History,
    number: int,
    row: Row,
    above: Experiment | None,
    parent: int | None,
    notes: list[str],
) -> Experiment:
    """Return the experiment of a row, its id, campaign and scope still without the campaign's."""
    commit, text = history.commits[number], history.codes[number]
    if not commit:
        known = f"commit {row.commit!r} is not in the repository (any more)"
        lost = known if row.commit else "no commit is given"
        notes.append(f"line {row.line}: {lost}; its diff and settings are missing")
    elif not text:
        notes.append(f"line {row.line}: commit {row.commit} holds no {history.code}; its settings are missing")
    diff = history.diff(number, parent)
    if len(diff) > LONGEST_DIFF:
        notes.append(f"line {row.line}: its diff of {len(diff):,} letters is cut at {LONGEST_DIFF:,}")
        diff = diff[:LONGEST_DIFF]
    parsed = Code(text) if text else None
    config: Mapping[str, Any] = parsed.config() if parsed else {}
    if commit and above and not diff and history.commits[parent or 0]:
        notes.append(f"line {row.line}: commit {row.commit} changes nothing in {history.code}")
    seconds = Code(history.settings[number]).config().get("TIME_BUDGET")
    timed = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
    seed = row.seed if row.seed is not None else config.get("SEED")
    named = row.commit if re.fullmatch(r"[0-9a-f]{4,64}", row.commit) else "unknown"  # any text may stand there
    return Experiment(
        id=f"{number:04d}:{named}",
        at=history.times.get(commit, 0.0),
        number=number,
        parent=above.id if above else "",
        diff=diff,
        ast_hash=parsed.digest if parsed else "",
        config=dict(config),
        seed=seed if isinstance(seed, int) and 0 <= seed < 2**53 else 0,
        budget_kind="seconds" if timed else "",
        budget=float(seconds) if timed and seconds is not None else 0.0,
        description=row.description,
    )


def _outcome(experiment: str, row: Row) -> Outcome:
    crashed = row.metric is None
    return Outcome(
        experiment=experiment,
        status=Status.TIMEOUT if row.timeout else Status.CRASH if crashed else Status.OK,
        metric_name=row.metric_name,
        metric=row.metric,
        steps=row.steps,
        cost=row.cost,
        wall=row.wall,
        memory=row.memory,
    )


def _verdict(
    experiment: str, baseline: str, row: Row, before: float | None, decision: Decision, sigma: float | None
) -> Verdict:
    delta = before - row.metric if before is not None and row.metric is not None else None
    return Verdict(
        experiment=experiment,
        baseline=baseline,
        delta=delta,
        sigma=sigma,
        n=1,
        decision=decision,
        decided=row.decision is not None,
    )
