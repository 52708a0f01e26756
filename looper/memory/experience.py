"""What a run adds to the memory: an experiment credited from its code, its outcome, and a verdict given the noise."""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Collection
from statistics import NormalDist, fmean, variance
from typing import Any

from looper.errors import ConfigError
from looper.memory.credit import credit, roles
from looper.memory.guard import FIXED, proposed
from looper.memory.rows import Decision, Experiment, Outcome, Scope, Status, Verdict
from looper.memory.store import MemoryStore
from looper.memory.syntax import Code, code_of
from looper.records import Record


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
    return _first_with(store, code_of(code).digest, campaign, scope)


def _first_with(store: MemoryStore, digest: str, campaign: str, scope: Scope) -> str:
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
    id: str = "",
) -> Experiment:
    """Add the experiment of changing `before` into `code`; without a `before` it is a baseline, or a replicate of one.

    The parent is looked up by the program that `before` is, unless it is named. Methods are credited from the syntax
    trees; those that were only `claimed` are kept as claims. Without an `id` it gets one that no other process makes.
    Where the parent is not known yet, the digest of `before` is kept, so that its baseline finds it later.
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
    credits = credit(before, code, store.methods(), claimed=claimed) if before else {}
    with store.transaction():  # two processes must not take the same number
        number = store.counted("experiment", campaign)
        experiment = made.model_copy(
            update={
                "id": id or f"{campaign or 'experiment'}:{number:04d}:{uuid.uuid4().hex[:7]}",
                "at": time.time(),
                "number": number,
                "retrieval": retrieval,
                "methods": roles(credits),
            }
        )
        store.add_experiment(experiment, before=code_of(before).digest if before and not parent else "")
    return experiment


def add_outcome(store: MemoryStore, outcome: Outcome, *, decision: Decision | None = None, gate: float = 2.0) -> Logged:
    """Add what an experiment measured and judge it against its parent, in one transaction.

    `decision` is what the caller did with the change; without it `judged` says whether it is beyond the `gate`. Raises
    ConfigError for a finished run without a number, a price below 0 and a decision that does not go with the status.
    """
    require_result(outcome.status, outcome.metric, outcome.metric_name)
    _require_prices(outcome)
    if outcome.status is not Status.OK and decision in (Decision.KEEP, Decision.INCONCLUSIVE):
        raise ConfigError(
            f"{outcome.experiment!r} ended with {outcome.status}; decide crash or discard, not {decision}"
        )
    with store.transaction():
        experiment = store.experiment(outcome.experiment)
        store.add_outcome(outcome)
        noise = measured_noise(store, experiment.scope, outcome.metric_name)
        verdict, notes = judged(store, experiment, outcome, noise, decision=decision, gate=gate)
        if verdict is not None:
            store.add_verdict(verdict)
        rejudged = _rejudge(store, experiment, outcome, noise, gate)
    return Logged(experiment=experiment, outcome=outcome, verdict=verdict, noise=noise, notes=notes, rejudged=rejudged)


def require_result(status: str, metric: float | None, metric_name: str) -> None:
    """Raise ConfigError for an unknown status, or for a run that ended well without a finite number."""
    if status not in list(Status):
        raise ConfigError(f"unknown status {status!r}; choose one of {', '.join(Status)}")
    if status == Status.OK and (metric is None or not math.isfinite(metric)):
        raise ConfigError(f"a run is ok with {metric_name} {metric}; give a number, or the status crash or timeout")


def _require_prices(outcome: Outcome) -> None:
    """Refuse what a run cannot have cost; rows that are stored already stay readable."""
    for name in ("steps", "prompt_tokens", "completion_tokens", "cost", "wall", "memory"):
        value = getattr(outcome, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}={value}; give a number from 0 on, or leave it out where it is unknown")


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
    else the mean of its replicates. P(improve) is Student's, for the noise itself was estimated, and counts the noise
    of the parent too. Unless the caller made the `decision`, a change is kept where P(improve) is at least Phi(gate),
    discarded where it is at most Phi(-gate), and else inconclusive. So a change that does nothing is kept in about
    Phi(-gate) of the cases, and discarded in as many: 2.3 % each at the gate of 2, however few seeds the baseline has
    (1.4 to 2.0 % where one result of the same seed is compared, for the noise was estimated from that one too).
    The price of few seeds is what goes unseen: with two, a change has to be worth some twenty times the noise.
    """
    experiment = _linked(store, experiment)
    told: dict[str, Any] = {"experiment": experiment.id, "sigma": noise.sigma, "decided": decision is not None}
    told["freedom"] = noise.freedom if noise.sigma is not None else None
    if not experiment.parent:
        if not experiment.diff:
            return None, ()
        theirs = Verdict(**told, baseline="", decision=decision) if decision else None
        return theirs, ("its parent is not known: log the baseline (the code before, and its result), which judges it",)
    if outcome.status is not Status.OK:
        return Verdict(**told, baseline=experiment.parent, decision=decision or Decision.CRASH), ()
    results = _comparable(store, experiment, outcome.metric_name)
    if not results or outcome.metric is None:
        verdict = Verdict(**told, baseline=experiment.parent, decision=decision or Decision.INCONCLUSIVE)
        return verdict, (f"no {outcome.metric_name} of its parent in this scope and budget; log the baseline here too",)
    same = [one for one in results if one[0].seed == experiment.seed] if experiment.budget_kind in FIXED else []
    against = same or results
    delta = fmean(metric for _, metric in against) - outcome.metric
    notes = () if noise.sigma is not None else (f"the noise is unknown, so {delta:+.6g} proves nothing: {noise.note}",)
    verdict = Verdict(
        **told,
        baseline=against[0][0].id,
        delta=delta,
        p_improve=_chance(delta, noise, len(against)),
        decision=decision or decided(delta, noise, len(against), gate),
    )
    return verdict, notes


def _linked(store: MemoryStore, experiment: Experiment) -> Experiment:
    """Return a change with its parent, where that ran only after it."""
    before = "" if experiment.parent or not experiment.diff else store.program_before(experiment.id)
    found = _first_with(store, before, experiment.campaign, experiment.scope) if before else ""
    return experiment.model_copy(update={"parent": found}) if found and found != experiment.id else experiment


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


def decided(delta: float, noise: Noise, count: int, gate: float) -> Decision:
    """Return what a difference to the mean of `count` results says, given the noise; see `judged` for its error."""
    doubt = _chance(-abs(delta), noise, count)  # that the truth lies on the other side; near 0 it is exact
    if doubt is None or delta == 0.0 or doubt > NormalDist().cdf(-gate):
        return Decision.INCONCLUSIVE
    return Decision.KEEP if delta > 0.0 else Decision.DISCARD


def _rejudge(
    store: MemoryStore, experiment: Experiment, outcome: Outcome, noise: Noise, gate: float
) -> tuple[str, ...]:
    """Judge again what was judged in this scope before its baseline or the noise was known.

    What the caller decided stays.
    """
    again: list[str] = []
    for other in store.experiments(scope=experiment.scope):
        verdict, result = store.verdict(other.id), store.outcome(other.id)
        if result is None or result.metric_name != outcome.metric_name:
            continue
        if verdict is not None and verdict.baseline and verdict.delta is not None and verdict.sigma is not None:
            continue
        new, _ = judged(store, other, result, noise, decision=_of_the_caller(verdict), gate=gate)
        if new is not None and _tells_more(new, verdict):
            store.add_verdict(new)
            again.append(other.id)
    return tuple(again)


def _tells_more(new: Verdict, old: Verdict | None) -> bool:
    if old is None or (new.baseline and not old.baseline):
        return True
    if new.delta is None:
        return False
    return old.delta is None or (old.sigma is None and new.sigma is not None)


def _of_the_caller(verdict: Verdict | None) -> Decision | None:
    """Return what the caller decided; None where that was left to the memory."""
    if verdict is None:
        return None
    # Older files do not say who decided; without a noise the memory alone calls nothing better or worse.
    theirs = verdict.decided or verdict.decision is not Decision.INCONCLUSIVE
    return verdict.decision if theirs else None


def _metric(outcome: Outcome | None) -> float | None:
    return outcome.metric if outcome is not None and outcome.status is Status.OK else None
