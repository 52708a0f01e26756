"""A gate at the moment of proposing: was this tried, what came of it, and what would make it worth trying again."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from looper.errors import ConfigError
from looper.memory.duplicates import NEAR, Duplicate, duplicates
from looper.memory.rows import Decision, Experiment, Outcome, Status, Verdict
from looper.memory.syntax import Code, code_of
from looper.records import Record, digest_of

FIXED = ("steps", "tokens")
"""Kinds of budgets under which a run repeats itself: there only another seed is another measurement."""
BUDGETS = (*FIXED, "seconds")


class History(Protocol):
    """What the gate reads; the store is one, `Rows` another."""

    def experiments(self) -> Sequence[Experiment]:
        """Return all experiments in order."""
        ...

    def outcome(self, id: str) -> Outcome | None:
        """Return the outcome of an experiment; None while there is none."""
        ...

    def verdict(self, id: str) -> Verdict | None:
        """Return the verdict on an experiment; None while there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A history in memory."""

    rows: Sequence[Experiment]
    outcomes: Sequence[Outcome] = ()
    verdicts: Sequence[Verdict] = ()

    def experiments(self) -> Sequence[Experiment]:
        """Return all experiments in order."""
        return self.rows

    def outcome(self, id: str) -> Outcome | None:
        """Return the outcome of an experiment; None while there is none."""
        return next((outcome for outcome in self.outcomes if outcome.experiment == id), None)

    def verdict(self, id: str) -> Verdict | None:
        """Return the latest verdict on an experiment; None while there is none."""
        return next((verdict for verdict in reversed(self.verdicts) if verdict.experiment == id), None)


@dataclass(frozen=True, kw_only=True)
class Guard:
    """When a proposal is blocked or commented on."""

    enabled: bool = True
    """False answers `allow` to everything."""
    hopeless: float = 0.05
    """A repeated program is blocked if the probability that it improves is at most this."""
    replicates: int = 2
    """Replicates from which evidence counts, however small its effect."""
    sigmas: float = 3.0
    """Size of an effect, in standard deviations of one measurement, from which one replicate counts."""
    near: float = NEAR
    """Jaccard similarity of descriptions or diffs from which a proposal is commented on."""
    shown: int = 3
    """Most near-duplicates that an answer names."""


class Ruling(StrEnum):
    """What the gate says."""

    ALLOW = "allow"
    CAUTION = "caution"
    """Tried before, or nearly; the evidence is given and the choice left to the proposer."""
    BLOCK = "block"
    """The same program under the same conditions is known not to help."""


class Answer(Record):
    """The gate's answer to a proposal."""

    ruling: Ruling
    reason: str
    evidence: tuple[str, ...] = ()
    """Ids of the experiments that the reason speaks of."""
    reopens: tuple[str, ...] = ()
    """What would lift a block, each a condition."""
    p_improve: float | None = None
    """Probability that the program improves on its parent, where repeats of it say."""


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What the repeats of one program say together."""

    n: int = 0
    """Independent replicates."""
    delta: float | None = None
    sigma: float | None = None
    p_improve: float | None = None
    crashes: int = 0

    def __str__(self) -> str:
        parts = [] if self.delta is None else [f"delta {self.delta:+.4g} (positive is better), n {self.n}"]
        parts += [] if self.sigma is None else [f"sigma {self.sigma:.2g}"]
        parts += [] if self.p_improve is None else [f"P(improve) {self.p_improve:.2g}"]
        parts += [f"{self.crashes} crashed or timed out"] if self.crashes else []
        return ", ".join(parts) or "no result yet"


def gate(proposal: Experiment, history: History, settings: Guard | None = None) -> Answer:
    """Answer whether a proposal should be run.

    It is blocked only if the same program ran before from the same parent, in the same scope, with
    the same budget and policy of seeds, and what came of it is beyond noise: P(improve) is at most
    `hopeless` and there are `replicates`, or the effect is beyond `sigmas`; or that many crashed
    and none ended well. Everything else that is alike is a caution.
    """
    settings = settings or Guard()
    if not settings.enabled:
        return Answer(ruling=Ruling.ALLOW, reason="the guard is off")
    prior = [_linked(experiment, history) for experiment in history.experiments()]
    known = {experiment.id: experiment for experiment in prior}
    alike = duplicates(proposal, prior, near=settings.near)
    exact = [known[one.experiment] for one in alike if one.exact]
    same = [other for other in exact if not _differs(proposal, other, known, prior)]
    belief = believe(same, history)
    if same and _hopeless(belief, settings):
        return Answer(
            ruling=Ruling.BLOCK,
            reason=f"the same program ran from the same parent under the same conditions as "
            f"{_ids(same)}: {belief}; running it again would tell nothing new",
            evidence=tuple(other.id for other in same),
            reopens=_reopens(proposal, belief, settings),
            p_improve=belief.p_improve,
        )
    reasons, evidence = _cautions(proposal, alike, exact, known, prior, history, settings)
    if not reasons:
        return Answer(ruling=Ruling.ALLOW, reason="nothing like it was tried")
    return Answer(
        ruling=Ruling.CAUTION,
        reason="; ".join(reasons),
        evidence=tuple(dict.fromkeys(evidence)),
        p_improve=belief.p_improve,
    )


def believe(repeats: Sequence[Experiment], history: History) -> Belief:
    """Pool the verdicts on repeats of one program.

    The mean difference has the variance sigma^2 / n of the results and, as they may all be compared
    with one baseline, sigma^2 / (largest n of one verdict) of the baseline: on the careful side.
    Where a run is deterministic (a budget of steps or tokens), repeats of one seed count once. P(improve) is Student's
    with the fewest degrees of freedom among the verdicts, normal where sigma was given.
    """
    looks: dict[object, Verdict] = {}
    crashes = 0
    for experiment in repeats:
        outcome, verdict = history.outcome(experiment.id), history.verdict(experiment.id)
        failed = outcome is not None and outcome.status is not Status.OK
        if failed or (verdict is not None and verdict.decision is Decision.CRASH):
            crashes += 1
        elif verdict is not None and verdict.delta is not None:
            key = experiment.seed if experiment.budget_kind in FIXED else experiment.id
            if key not in looks or looks[key].n < verdict.n:
                looks[key] = verdict
    if not looks:
        return Belief(crashes=crashes)
    n = sum(verdict.n for verdict in looks.values())
    delta = sum(verdict.n * (verdict.delta or 0.0) for verdict in looks.values()) / n
    sigma = max((verdict.sigma for verdict in looks.values() if verdict.sigma is not None), default=None)
    stated = [verdict.p_improve for verdict in looks.values() if verdict.p_improve is not None]
    chances = stated if len(looks) == 1 or sigma is None else []
    if sigma is not None:
        error = sigma * math.sqrt(1 / n + 1 / max(verdict.n for verdict in looks.values()))
        chances = [*chances, _below(delta / error, min(_freedom(verdict) for verdict in looks.values()))]
    return Belief(n=n, delta=delta, sigma=sigma, p_improve=max(chances, default=None), crashes=crashes)


def _freedom(verdict: Verdict) -> float:
    """Return the degrees of freedom behind a verdict's sigma; infinity where it was given."""
    if verdict.freedom is not None:
        return verdict.freedom
    # Who states P(improve) estimated sigma; older files do not say from how much, so it is taken for the least.
    return math.inf if verdict.p_improve is None else 1.0


def _below(t: float, freedom: float) -> float:
    from scipy.special import ndtr, stdtr

    return float(ndtr(t) if math.isinf(freedom) else stdtr(freedom, t))


def proposed(
    before: Code | str,
    after: Code | str,
    *,
    parent: str = "",
    description: str = "",
    campaign: str = "",
    scope: str = "",
    seed: int = 0,
    budget_kind: str = "",
    budget: float = 0.0,
    path: str = "train.py",
) -> Experiment:
    """Return a change of code as the experiment that it would be; its id is a digest of what it changes and where.

    Raises ConfigError for a budget that is none: an unknown kind would be taken for one under which runs vary.
    """
    if budget_kind not in ("", *BUDGETS):
        raise ConfigError(f"unknown budget_kind {budget_kind!r}; choose one of {', '.join(BUDGETS)}, or leave it out")
    if not 0.0 <= budget < math.inf:
        raise ConfigError(f"budget={budget}; give how many {budget_kind or 'steps, tokens or seconds'} a run has")
    before, after = code_of(before), code_of(after)
    old, new = (code.text.splitlines(keepends=True) for code in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")
    diff = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    about = {"campaign": campaign, "scope": scope, "seed": seed, "budget_kind": budget_kind, "budget": budget}
    return Experiment(
        id="proposal:" + digest_of([after.digest, diff, parent, about]),
        at=0.0,
        parent=parent,
        diff=diff,
        ast_hash=after.digest,
        config=after.config(),
        description=description,
        campaign=campaign,
        scope=scope,
        seed=seed,
        budget_kind=budget_kind,
        budget=budget,
    )


def _differs(
    proposal: Experiment, other: Experiment, known: dict[str, Experiment], prior: Sequence[Experiment]
) -> list[str]:
    """Return the conditions in which two experiments differ; any of them reopens a question."""
    budgets = [(experiment.budget_kind, experiment.budget) for experiment in (proposal, other)]
    checks = {
        "parent": _parent(proposal, known) != _parent(other, known),
        "scope": proposal.scope != other.scope,
        "budget": budgets[0] != budgets[1],
        "policy of seeds": _seeds(proposal, [*prior, proposal]) != _seeds(other, prior),
    }
    return [name for name, differs in checks.items() if differs]


def _linked(experiment: Experiment, history: History) -> Experiment:
    """Return a change whose parent ran only after it with the parent that its verdict found."""
    verdict = history.verdict(experiment.id) if experiment.diff and not experiment.parent else None
    return experiment.model_copy(update={"parent": verdict.baseline}) if verdict else experiment


def _parent(experiment: Experiment, known: dict[str, Experiment]) -> str:
    """Return what tells a parent: its program if that is known, else its id."""
    parent = known.get(experiment.parent)
    return parent.ast_hash or experiment.parent if parent else experiment.parent


def _seeds(experiment: Experiment, prior: Sequence[Experiment]) -> int | None:
    """Return the seed that an experiment's campaign is pinned to; None where seeds vary."""
    if not experiment.campaign:
        return experiment.seed
    varied = any(other.campaign == experiment.campaign and other.seed != experiment.seed for other in prior)
    return None if varied else experiment.seed


def _hopeless(belief: Belief, settings: Guard) -> bool:
    if belief.delta is None:
        return belief.crashes >= settings.replicates
    if belief.p_improve is None or belief.p_improve > settings.hopeless:
        return False
    large = belief.sigma is not None and abs(belief.delta) > settings.sigmas * belief.sigma
    return belief.n >= settings.replicates or large


def _reopens(proposal: Experiment, belief: Belief, settings: Guard) -> tuple[str, ...]:
    budget = f"{proposal.budget:g} {proposal.budget_kind}" if proposal.budget_kind else "the one not recorded"
    new = (
        "a run of it that ends well"
        if belief.delta is None
        else f"new verdicts on it that raise P(improve) above {settings.hopeless:g}"
    )
    return (
        f"another parent than {proposal.parent or 'none'}: what it builds on decides what it does",
        f"another scope than {proposal.scope or 'the most general one'}",
        f"another budget than {budget}",
        f"another policy of seeds than that of the prior runs (seed {proposal.seed})",
        new,
        "a change of the program itself, beyond its formatting",
    )


def _cautions(
    proposal: Experiment,
    alike: Sequence[Duplicate],
    exact: Sequence[Experiment],
    known: dict[str, Experiment],
    prior: Sequence[Experiment],
    history: History,
    settings: Guard,
) -> tuple[list[str], list[str]]:
    """Return what a proposer should know, and the experiments that it is known from."""
    reasons: list[str] = []
    evidence: list[str] = []
    parent = known.get(proposal.parent)
    if proposal.ast_hash.startswith("text:"):
        reasons.append("the code does not parse, so it will not run")
    if parent is not None and parent.ast_hash and parent.ast_hash == proposal.ast_hash:
        reasons.append(f"the change does nothing: the program is that of its parent {parent.id}, a replicate of it")
        evidence.append(parent.id)
    for other in [other for other in exact if other.id not in evidence][: settings.shown]:
        differing = _differs(proposal, other, known, prior)
        how = f"under another {' and '.join(differing)}" if differing else "under the same conditions"
        belief = believe([other], history)
        reasons.append(f"{other.id} ran the same program {how}: {belief}{_advice(belief, differing, settings)}")
        evidence.append(other.id)
    for one in [one for one in alike if not one.exact][: settings.shown]:
        reasons.append(f"{one.experiment} is alike ({one.reason}): {believe([known[one.experiment]], history)}")
        evidence.append(one.experiment)
    return reasons, evidence


def _advice(belief: Belief, differing: Sequence[str], settings: Guard) -> str:
    if differing or belief.delta is None or belief.p_improve is None:
        return ""
    if belief.p_improve >= 1 - settings.hopeless:
        return "; it improves already: build on it"
    return "; not beyond noise, so a replicate would tell more"


def _ids(experiments: Sequence[Experiment], most: int = 4) -> str:
    names = [experiment.id for experiment in experiments]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
