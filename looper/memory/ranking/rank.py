"""Methods in the order in which to try them, with every component of the score; and its placebo."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from looper.memory.ranking.fatigue import unheeded
from looper.memory.ranking.posterior import effects, noise
from looper.memory.ranking.risk import crash_risks, relative_costs
from looper.memory.ranking.score import values_of
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence, Exposure, Item, Method, Scope
from looper.records import Record


class Ranked(Record):
    """A method at its place."""

    rank: int
    """From 1."""
    method: str
    score: float
    parts: dict[str, float] = Field(default_factory=dict)
    """effect, effect_sd, draw, gain, sigma in the metric's unit; p, crash_risk, fatigue, relevance, cost, runs."""
    notes: tuple[str, ...] = ()
    """What speaks against it here, and what it goes together with."""

    def item(self, chunk: int | None = None, *, shown: bool = True) -> Item:
        """Return the row that a retrieval keeps."""
        return Item(rank=self.rank, method=self.method, chunk=chunk, score=self.score, parts=self.parts, shown=shown)


def rank(
    methods: Sequence[Method],
    evidence: Sequence[Evidence],
    exposures: Sequence[Exposure],
    *,
    scope: Scope,
    seed: int,
    settings: Ranking,
    relevance: Mapping[str, float] | None = None,
    present: Collection[str] = (),
    since: int = 0,
) -> list[Ranked]:
    """Return the methods that the code does not have yet, best first.

    `relevance` is any score of the text search, not negative, larger is better; `present` names the methods that the
    code has; `since` is how many experiments existed when the present parent was accepted. Take another seed for each
    retrieval, and store it: the same arguments give the same list.
    """
    chosen = [method for method in methods if method.id not in present]
    known = effects(chosen, evidence, scope=scope, settings=settings)
    sigma = noise(evidence, scope, settings.sigma)
    fit = relevance or {}
    best = max(fit.values(), default=0.0)
    names = [method.id for method in chosen]
    runs = Counter(name for e in evidence for name in e.methods)
    risks = crash_risks(names, evidence, scope=scope, settings=settings) if settings.crash else {}
    costs = relative_costs(names, evidence, settings=settings)
    shown = unheeded(names, exposures, evidence, scope=scope, since=since) if settings.fatigue else {}
    names_of_all = {method.id for method in methods}
    values = values_of(known, seed, settings)
    scored = []
    for method in chosen:
        value = values[method.id]
        parts = {
            "effect": known[method.id].mean * sigma,
            "effect_sd": known[method.id].sd * sigma,
            "sigma": sigma,
            "draw": value.draw * sigma,
            "p": value.p,
            "gain": value.gain * sigma,
            "crash_risk": risks.get(method.id, 0.0),
            "fatigue": settings.rho ** shown.get(method.id, 0),
            "relevance": 1.0 + settings.relevance * max(fit.get(method.id, 0.0), 0.0) / best if best > 0.0 else 1.0,
            "cost": costs[method.id],
            "runs": float(runs[method.id]),
        }
        score = parts["p"] * parts["gain"] / parts["cost"] * (1.0 - parts["crash_risk"])
        scored.append((score * parts["fatigue"] * parts["relevance"], parts, method))
    scored.sort(key=lambda entry: (-entry[0], -entry[1]["draw"], entry[2].id))
    return [
        Ranked(rank=place, method=method.id, score=score, parts=parts, notes=_notes(method, names_of_all, present))
        for place, (score, parts, method) in enumerate(scored, 1)
    ]


def _notes(method: Method, named: Collection[str], present: Collection[str]) -> tuple[str, ...]:
    clashes = [f"contraindicated: the code has {name}" for name in method.contraindications if name in present]
    # A contraindication is the id of a method, which matters where the code has it, or a circumstance in words.
    warnings = [f"contraindication: {text}" for text in method.contraindications if text not in {*present, *named}]
    partners = [f"goes with {name}, which the code lacks" for name in method.couples_with if name not in present]
    return (*clashes, *warnings, *partners)


def shuffled(
    methods: Sequence[Method], evidence: Sequence[Evidence], *, seed: int
) -> tuple[list[Method], list[Evidence]]:
    """Return the same methods with what is known of them (claims and evidence) dealt to other methods.

    The placebo of the ranking: lists as long, experiments as many, effects as large, but of the wrong methods. No
    method keeps its own. The seed belongs to the campaign: another one for each retrieval would be a random order
    instead. Exposures stay with the methods that were really shown.
    """
    names = sorted({m.id for m in methods} | {name for e in evidence for name in e.methods})
    order = list(names)
    random.Random(seed).shuffle(order)
    # One cycle through all of them leaves none in its place.
    other = {name: order[(at + 1) % len(order)] for at, name in enumerate(order)}
    claims = {other[m.id]: m.claims for m in methods}
    return (
        [m.model_copy(update={"claims": claims.get(m.id, ())}) for m in methods],
        [e.model_copy(update={"methods": tuple(other[name] for name in e.methods)}) for e in evidence],
    )
