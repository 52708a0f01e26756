"""What a run adds to the memory: an experiment credited from its code, its outcome, and a verdict given the noise."""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Collection
from statistics import fmean, variance

from looper.errors import ConfigError
from looper.memory.credit import credit, roles
from looper.memory.guard import proposed
from looper.memory.rows import Decision, Experiment, Outcome, Scope, Status, Verdict
from looper.memory.store import MemoryStore
from looper.memory.syntax import Code, code_of
from looper.records import Record

FIXED = ("steps", "tokens")
"""Kinds of budgets under which a run repeats itself: there only another seed is another measurement."""


class Noise(Record):
    """The spread of one measurement, from programs that ran more than once in a scope."""

    sigma: float | None
    """Standard deviation of one result; None where nothing tells."""
    freedom: int = 0
    """Degrees of freedom: results beyond the first of each program."""
    note: str = ""
    """How it was measured, or why not."""


class Logged(Record):
    """What a finished run left in the memory."""

    experiment: Experiment
    outcome: Outcome
    verdict: Verdict | None
    """None where there is nothing to compare with; the notes say why."""
    noise: Noise
    notes: tuple[str, ...] = ()
    rejudged: tuple[str, ...] = ()
    """Earlier experiments that got a new verdict, for the noise is known only now."""


def parent_of(store: MemoryStore, code: Code | str, *, campaign: str, scope: Scope) -> str:
    """Return the first experiment that ran this program in the scope, of the campaign if it has one; '' for none."""
    digest = code_of(code).digest
    alike = [other for other in store.experiments(scope=scope) if other.ast_hash == digest]
    own = [other for other in alike if other.campaign == campaign]
    finished = [other for other in own or alike if _metric(store.outcome(other.id)) is not None]
    return next((other.id for other in finished or own or alike), "")


def add_experiment(
    store: MemoryStore,
    code: str,
    *,
    before: str = "",
    retrieval: str = "",
    description: str = "",
    campaign: str = "",
    scope: Scope = "",
    seed: int = 0,
    budget_kind: str = "",
    budget: float = 0.0,
    parent: str = "",
    claimed: Collection[str] = (),
) -> Experiment:
    """Add the experiment of changing `before` into `code`; without a `before` it is a baseline, or a replicate of one.

    The parent is looked up by the program that `before` is, unless it is named. Methods are credited from the syntax
    trees; those that were only `claimed` are kept as claims.
    """
    if before and not parent:
        parent = parent_of(store, before, campaign=campaign, scope=scope)
    made = proposed(
        before or code,
        code,
        parent=parent,
        description=description,
        campaign=campaign,
        scope=scope,
        seed=seed,
        budget_kind=budget_kind,
        budget=budget,
    )
    number = len(store.experiments(campaign=campaign))
    credits = credit(before, code, store.methods(), claimed=claimed) if before else {}
    experiment = made.model_copy(
        update={
            "id": f"{campaign or 'experiment'}:{number:04d}:{uuid.uuid4().hex[:7]}",
            "at": time.time(),
            "number": number,
            "retrieval": retrieval,
            "methods": roles(credits),
        }
    )
    store.add_experiment(experiment)
    return experiment


def add_outcome(store: MemoryStore, outcome: Outcome, *, decision: Decision | None = None, gate: float = 2.0) -> Logged:
    """Add what an experiment measured and judge it against its parent.

    `decision` is what the caller did with the change; without it a change is kept or discarded if it is beyond `gate`
    times the noise, and else inconclusive. Raises ConfigError for a finished run without a number.
    """
    require_result(outcome.status, outcome.metric, outcome.metric_name)
    if outcome.status is not Status.OK and decision in (Decision.KEEP, Decision.INCONCLUSIVE):
        raise ConfigError(
            f"{outcome.experiment!r} ended with {outcome.status}; decide crash or discard, not {decision}"
        )
    experiment = store.experiment(outcome.experiment)
    store.add_outcome(outcome)
    noise = measured_noise(store, experiment.scope, outcome.metric_name)
    verdict, notes = judged(store, experiment, outcome, noise, decision=decision, gate=gate)
    if verdict is not None:
        store.add_verdict(verdict)
    return Logged(
        experiment=experiment,
        outcome=outcome,
        verdict=verdict,
        noise=noise,
        notes=notes,
        rejudged=_rejudge(store, experiment, outcome, noise, gate),
    )


def require_result(status: str, metric: float | None, metric_name: str) -> None:
    """Raise ConfigError for an unknown status, or for a run that ended well without a finite number."""
    if status not in list(Status):
        raise ConfigError(f"unknown status {status!r}; choose one of {', '.join(Status)}")
    if status == Status.OK and (metric is None or not math.isfinite(metric)):
        raise ConfigError(f"a run is ok with {metric_name} {metric}; give a number, or the status crash or timeout")


def measured_noise(store: MemoryStore, scope: Scope, metric_name: str = "val_bpb") -> Noise:
    """Return the noise of a scope: the pooled deviation of results of one program under one budget.

    Under a budget of steps or tokens results of one seed are one measurement, as such runs repeat themselves.
    """
    groups: dict[object, dict[object, float]] = defaultdict(dict)
    for experiment in store.experiments(scope=scope):
        outcome = store.outcome(experiment.id)
        metric = _metric(outcome)
        if metric is None or outcome is None or outcome.metric_name != metric_name or not experiment.ast_hash:
            continue
        kind = experiment.budget_kind
        key = (experiment.ast_hash, kind, experiment.budget)
        groups[key][experiment.seed if kind in FIXED else experiment.id] = metric
    repeated = [list(group.values()) for group in groups.values() if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return Noise(
            sigma=None, note="no program ran twice here; log the baseline again with another seed to measure it"
        )
    pooled = sum((len(group) - 1) * variance(group) for group in repeated) / freedom
    if not pooled > 0.0:
        return Noise(sigma=None, note="the replicates agree to the last digit; log one with another seed")
    count = freedom + len(repeated)
    note = f"measured from {count} results of {len(repeated)} program{'s' * (len(repeated) > 1)} that ran repeatedly"
    return Noise(sigma=math.sqrt(pooled), freedom=freedom, note=note)


def judged(
    store: MemoryStore,
    experiment: Experiment,
    outcome: Outcome,
    noise: Noise,
    *,
    decision: Decision | None = None,
    gate: float = 2.0,
) -> tuple[Verdict | None, tuple[str, ...]]:
    """Return the verdict on an outcome, and what should be known about it.

    delta is the parent's result less the own one; the parent's is that of the same seed where runs repeat themselves,
    else the mean of its replicates. P(improve) is Student's, for the noise itself was estimated.
    """
    if not experiment.parent:
        if not experiment.diff:
            return None, ()
        return None, ("its parent is not known: log the baseline (the code before, and its result) first",)
    if outcome.status is not Status.OK:
        verdict = Verdict(
            experiment=experiment.id, baseline=experiment.parent, sigma=noise.sigma, decision=decision or Decision.CRASH
        )
        return verdict, ()
    results = _comparable(store, experiment, outcome.metric_name)
    if not results or outcome.metric is None:
        verdict = Verdict(
            experiment=experiment.id,
            baseline=experiment.parent,
            sigma=noise.sigma,
            decision=decision or Decision.INCONCLUSIVE,
        )
        return verdict, (f"no {outcome.metric_name} of its parent in this scope and budget; log the baseline here too",)
    same = [one for one in results if one[0].seed == experiment.seed] if experiment.budget_kind in FIXED else []
    against = same or results
    delta = fmean(metric for _, metric in against) - outcome.metric
    notes = () if noise.sigma is not None else (f"the noise is unknown, so {delta:+.6g} proves nothing: {noise.note}",)
    verdict = Verdict(
        experiment=experiment.id,
        baseline=against[0][0].id,
        delta=delta,
        sigma=noise.sigma,
        p_improve=_chance(delta, noise, len(against)),
        decision=decision or _decided(delta, noise, gate),
    )
    return verdict, notes


def _comparable(store: MemoryStore, experiment: Experiment, metric_name: str) -> list[tuple[Experiment, float]]:
    """Return the results of the parent's program in the experiment's own scope and budget."""
    parent = store.experiment(experiment.parent)
    found = []
    for other in store.experiments(scope=experiment.scope):
        same = other.ast_hash == parent.ast_hash if parent.ast_hash else other.id == parent.id
        if not same or other.id == experiment.id:
            continue
        outcome = store.outcome(other.id)
        metric = _metric(outcome)
        budgets = [(one.budget_kind, one.budget) for one in (other, experiment)]
        if metric is not None and outcome and outcome.metric_name == metric_name and budgets[0] == budgets[1]:
            found.append((other, metric))
    return found


def _chance(delta: float, noise: Noise, count: int) -> float | None:
    from scipy.special import stdtr

    if noise.sigma is None:
        return None
    return float(stdtr(noise.freedom, delta / (noise.sigma * math.sqrt(1.0 + 1.0 / count))))


def _decided(delta: float, noise: Noise, gate: float) -> Decision:
    if noise.sigma is None or abs(delta) <= gate * noise.sigma:
        return Decision.INCONCLUSIVE
    return Decision.KEEP if delta > 0.0 else Decision.DISCARD


def _rejudge(
    store: MemoryStore, experiment: Experiment, outcome: Outcome, noise: Noise, gate: float
) -> tuple[str, ...]:
    """Judge again what was judged in this scope before the noise was known; what the caller decided stays."""
    if noise.sigma is None:
        return ()
    again: list[str] = []
    for other in store.experiments(scope=experiment.scope):
        verdict, result = store.verdict(other.id), store.outcome(other.id)
        if verdict is None or result is None or verdict.sigma is not None or verdict.delta is None:
            continue
        if result.metric_name != outcome.metric_name:
            continue
        theirs = None if verdict.decision is Decision.INCONCLUSIVE else verdict.decision
        new, _ = judged(store, other, result, noise, decision=theirs, gate=gate)
        if new is not None:
            store.add_verdict(new)
            again.append(other.id)
    return tuple(again)


def _metric(outcome: Outcome | None) -> float | None:
    return outcome.metric if outcome is not None and outcome.status is Status.OK else None
