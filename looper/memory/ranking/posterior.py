"""Normal posteriors of effects: scopes shrink to their parents, and joint experiments share their credit.

The model, with effects in units of one measurement's noise sigma:

    effect(m, '')      ~ N(0, prior_sd^2)
    effect(m, child)   ~ N(effect(m, parent), scope_sd^2)
    delta(experiment)  ~ N(sum of its methods' effects in its scope, (sigma_experiment / sigma)^2 / n)

All of it is jointly normal, so conditioning on the evidence is exact. Two effects of one method have the covariance
prior_sd^2 + scope_sd^2 * (steps that their scopes have in common); effects of different methods are independent until
an experiment holds both. A scope without evidence has its parent's mean; one with much evidence has its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence, Method, Scope, ancestors

Bundle = Mapping[str, float]
"""Subjects (methods, queries, words) whose effects add up, each with its weight."""
HIGHER_IS_BETTER = frozenset({"accuracy", "bleu", "exact match", "f1", "mmlu"})
"""Units of claims whose positive effects are improvements."""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Normal:
    """A normal distribution of an effect, in sigma."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Observation:
    """A noisy look at the sum of a bundle's effects, in sigma."""

    bundle: Bundle
    scope: Scope
    value: float
    variance: float


def noise(evidence: Sequence[Evidence], scope: Scope, fallback: float) -> float:
    """Return the sigma of a scope: the median measured in it, else below its nearest ancestor, else the fallback."""
    return noises(evidence, [scope], fallback)[scope]


def noises(evidence: Sequence[Evidence], scopes: Iterable[Scope], fallback: float) -> dict[Scope, float]:
    """Return the sigma of each scope."""
    measured: dict[Scope, list[float]] = defaultdict(list)
    for e in evidence:
        if e.sigma is not None:
            measured[e.scope].append(e.sigma)
    lines = {scope: ancestors(scope) for scope in measured}
    found = {}
    for scope in scopes:
        places = ancestors(scope)
        near = ([s for other, line in lines.items() if place in line for s in measured[other]] for place in places)
        found[scope] = next((median(sigmas) for sigmas in near if sigmas), fallback)
    return found


def latest(evidence: Sequence[Evidence]) -> int:
    """Return the order of the newest experiment, -1 if there is none."""
    return max((e.order for e in evidence), default=-1)


def weight_of(order: int, newest: int, settings: Ranking) -> float:
    """Return what evidence counts by its age: 1 for the newest, half after each half-life."""
    return 0.5 ** (max(newest - order, 0) / settings.half_life) if settings.recency else 1.0


def place_of(scope: Scope, settings: Ranking) -> Scope:
    """Return the scope as the model sees it; without the switch everything happens in one place."""
    return scope if settings.scopes else ""


def observed(evidence: Sequence[Evidence], settings: Ranking) -> list[Observation]:
    """Turn measured experiments into observations of their methods' effects.

    Those without methods or without a delta (crashes) say nothing of effects. Old ones get a larger variance.
    """
    newest = latest(evidence)
    sigmas = noises(evidence, {e.scope for e in evidence}, settings.sigma)
    groups: dict[tuple[tuple[str, ...], Scope], list[tuple[float, float]]] = defaultdict(list)
    for e in evidence:
        if e.delta is None or not e.methods:
            continue
        unit = sigmas[e.scope]
        spread = (e.sigma or unit) / unit
        precision = e.n * weight_of(e.order, newest, settings) / spread**2
        groups[tuple(sorted(set(e.methods))), place_of(e.scope, settings)].append((e.delta / unit, precision))
    found = []
    for (methods, scope), looks in sorted(groups.items()):
        # fsum is exact, so that the order in which evidence is listed cannot change the last digit.
        precision = math.fsum(p for _, p in looks)
        mean = math.fsum(value * p for value, p in looks) / precision
        found.append(Observation(dict.fromkeys(methods, 1.0), scope, mean, 1.0 / precision))
    return found


def claimed(methods: Sequence[Method], evidence: Sequence[Evidence], settings: Ranking) -> list[Observation]:
    """Turn the claims of sources into weak observations of the most general scope.

    A claim in the metric's own unit counts with its size, capped; of any other only the sign counts. Claims say that
    negative is better, deltas that positive is.
    """
    unit = noise(evidence, "", settings.sigma)
    found = []
    for method in methods:
        sizes = []
        for claim in method.claims:
            if claim.unit == settings.unit:
                sizes.append(min(max(-claim.effect / unit, -settings.claim_cap), settings.claim_cap))
            elif claim.effect:
                better = claim.effect if claim.unit.lower() in HIGHER_IS_BETTER else -claim.effect
                sizes.append(math.copysign(settings.claim_size, better))
        if sizes:
            variance = settings.claim_sd**2 / min(len(sizes), 3)
            found.append(Observation({method.id: 1.0}, "", math.fsum(sizes) / len(sizes), variance))
    return found


def kernel(bundles: Sequence[Bundle], scopes: Sequence[Scope], settings: Ranking) -> Array:
    """Return the prior covariances of the effects of N bundles, each in its scope, (N, N)."""
    names: dict[str, int] = {}
    for bundle in bundles:
        for name in bundle:
            names.setdefault(name, len(names))
    weights = np.zeros((len(bundles), len(names)))
    for row, bundle in enumerate(bundles):
        for name, weight in bundle.items():
            weights[row, names[name]] = weight
    places = {scope: i for i, scope in enumerate(dict.fromkeys(scopes))}
    lines = [set(ancestors(scope)) for scope in places]
    shared = np.array([[len(x & y) - 1.0 for y in lines] for x in lines]).reshape(len(lines), len(lines))
    by_scope = settings.prior_sd**2 + settings.scope_sd**2 * shared  # (S, S)
    at = np.array([places[scope] for scope in scopes], dtype=np.int64)
    product: Array = (weights @ weights.T) * by_scope[np.ix_(at, at)]
    return product


def condition(prior: Array, cross: Array, seen: Array, values: Array, variances: Array) -> tuple[Array, Array]:
    """Return means (T,) and standard deviations (T,) of targets given observations.

    prior: (T,) prior variances; cross: (T, N); seen: (N, N) prior covariance of what was observed; values and
    variances: (N,).
    """
    if not len(values):
        return np.zeros(len(prior)), np.sqrt(prior)
    solved = np.linalg.solve(seen + np.diag(variances), np.column_stack([values, cross.T]))  # (N, 1 + T)
    left = prior - np.einsum("tn,nt->t", cross, solved[:, 1:])
    return cross @ solved[:, 0], np.sqrt(np.maximum(left, 1e-12 * prior))


def posteriors(
    bundles: Sequence[Bundle], observations: Sequence[Observation], *, scope: Scope, settings: Ranking
) -> list[Normal]:
    """Return the posterior of each bundle's effect in a scope, in sigma of that scope."""
    count = len(bundles)
    everything = kernel(
        [*bundles, *(o.bundle for o in observations)],
        [place_of(scope, settings)] * count + [o.scope for o in observations],
        settings,
    )
    means, sds = condition(
        np.diag(everything)[:count],
        everything[:count, count:],
        everything[count:, count:],
        np.array([o.value for o in observations]),
        np.array([o.variance for o in observations]),
    )
    return [Normal(float(mean), float(sd)) for mean, sd in zip(means, sds, strict=True)]


def effects(
    methods: Sequence[Method], evidence: Sequence[Evidence], *, scope: Scope, settings: Ranking
) -> dict[str, Normal]:
    """Return each method's posterior effect in a scope, in sigma of that scope (positive is better)."""
    looks = observed(evidence, settings)
    if settings.literature:
        looks += claimed(methods, evidence, settings)
    found = posteriors([{m.id: 1.0} for m in methods], looks, scope=scope, settings=settings)
    return {method.id: normal for method, normal in zip(methods, found, strict=True)}
