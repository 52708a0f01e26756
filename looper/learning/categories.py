"""Which expert a task belongs to: clusters of issue embeddings, or task families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from looper.errors import TrainingError

Points = NDArray[np.float32]

RESTARTS = 8
"""Starts of k-means; the tightest result counts."""
ROUNDS = 100
"""Most rounds of a start."""


@dataclass(frozen=True, kw_only=True)
class Categories:
    """Experts and the tasks that they learned from; grows from stage to stage."""

    mean: Points  # (D,) of the first stage's embeddings
    scale: Points  # (D,) their standard deviation
    centres: Points  # (E, D) of the experts, standardised
    tasks: Mapping[str, int]
    """Expert of each task that was learned from."""
    families: tuple[str, ...]
    """Family of each expert; empty for clusters."""
    ranks: tuple[int, ...]
    """Rank of each expert's adapter, also of those that have no task yet."""

    def standardised(self, embeddings: Points) -> Points:
        """Return embeddings (N, D) in units of the first stage's standard deviations."""
        return (embeddings - self.mean) / self.scale

    @property
    def experts(self) -> int:
        """Number of experts that have an adapter."""
        return len(self.centres)


def split_rank(rank: int, experts: int) -> tuple[int, ...]:
    """Split a rank into nearly equal whole parts, their sum the rank. Raises TrainingError if there is too little."""
    if rank < experts:
        raise TrainingError(
            f"trainer.rank={rank} cannot be split among {experts} experts; raise it, or lower strategy.experts"
        )
    return tuple(rank // experts + (i < rank % experts) for i in range(experts))


def begun(embeddings: Points, ranks: tuple[int, ...]) -> Categories:
    """Return categories without experts, with the units of these embeddings."""
    return Categories(
        mean=embeddings.mean(0),
        scale=embeddings.std(0) + np.float32(1e-6),
        centres=np.zeros((0, embeddings.shape[1]), np.float32),
        tasks={},
        families=(),
        ranks=ranks,
    )


def clusters(embeddings: Points, tasks: Sequence[str], *, rank: int, experts: int, least: int, seed: int) -> Categories:
    """Return categories by k-means on one embedding per task, each of at least `least` tasks where that can be."""
    empty = begun(embeddings, ())
    points = empty.standardised(embeddings)
    labels = kmeans(points, min(experts, max(1, len(tasks) // least)), seed=seed, least=least)
    found = int(labels.max()) + 1
    return _with(empty, points, tasks, labels, (), split_rank(rank, found))


def extended(
    known: Categories, embeddings: Points, tasks: Sequence[str], families: Mapping[str, str] | None
) -> Categories:
    """Give more tasks to experts: a task to its earlier one, a family to its own, all others to the nearest.

    A new family gets an expert of its own while there are ranks left. Without `families` experts are clusters.
    Raises TrainingError for a task of unknown family.
    """
    points = known.standardised(embeddings)
    names = list(known.families)
    labels = np.zeros(len(tasks), np.int64)
    later: list[int] = []
    for i, task in enumerate(tasks):
        if families is not None and task not in families and task not in known.tasks:
            raise TrainingError(f"the family of task {task!r} is unknown; give strategy.category=cluster")
        family = "" if families is None else families.get(task, "")
        if task in known.tasks:
            labels[i] = known.tasks[task]
        elif families is not None and (family in names or len(names) < len(known.ranks)):
            if family not in names:
                names.append(family)
            labels[i] = names.index(family)
        else:
            later.append(i)
    grown = _with(known, points, tasks, labels, tuple(names), known.ranks, skip=later)
    for i in later:
        labels[i] = int(_distances(points[i : i + 1], grown.centres).argmin())
    return _with(grown, points, tasks, labels, tuple(names), known.ranks)


def _with(
    known: Categories,
    points: Points,
    tasks: Sequence[str],
    labels: NDArray[np.int64],
    families: tuple[str, ...],
    ranks: tuple[int, ...],
    skip: Sequence[int] = (),
) -> Categories:
    """Return categories that know more tasks; experts that are new get the mean of theirs as centre."""
    used = np.array([i for i in range(len(tasks)) if i not in set(skip)], np.int64)
    count = max(len(families), known.experts, int(labels[used].max()) + 1 if len(used) else 0)
    new = [points[used[labels[used] == e]].mean(0) for e in range(known.experts, count)]
    centres = np.concatenate([known.centres, np.stack(new)]) if new else known.centres
    more = {tasks[i]: int(labels[i]) for i in used}
    return Categories(
        mean=known.mean,
        scale=known.scale,
        centres=centres,
        tasks={**known.tasks, **more},
        families=families,
        ranks=ranks,
    )


def kmeans(points: Points, count: int, *, seed: int, least: int = 1) -> NDArray[np.int64]:
    """Return the cluster of each point (N, D), numbered in the order of first appearance.

    k-means++ with restarts (Arthur and Vassilvitskii 2007). A cluster of fewer than `least` points is dissolved, the
    smallest first, and its points go to their nearest other centres: there may be fewer clusters than `count`.
    """
    random = np.random.default_rng(seed)
    runs = [_lloyd(points, _spread(points, count, random)) for _ in range(RESTARTS)]
    labels = min(runs, key=lambda found: _spread_of(points, found))
    while True:
        names, sizes = np.unique(labels, return_counts=True)
        if len(names) == 1 or sizes.min() >= least:
            break
        kept = names[names != names[sizes.argmin()]]
        centres = np.stack([points[labels == name].mean(0) for name in kept])
        moved = labels == names[sizes.argmin()]
        labels = np.where(moved, kept[_distances(points, centres).argmin(1)], labels)
    order = {name: i for i, name in enumerate(dict.fromkeys(labels.tolist()))}
    return np.array([order[name] for name in labels.tolist()], np.int64)


def _spread(points: Points, count: int, random: np.random.Generator) -> Points:
    """Draw first centres, each likelier the farther it is from those before."""
    chosen = [int(random.integers(len(points)))]
    while len(chosen) < count:
        weights = _distances(points, points[chosen]).min(1).astype(np.float64)
        if weights.sum() == 0.0:
            break  # fewer distinct points than clusters
        chosen.append(int(random.choice(len(points), p=weights / weights.sum())))
    return points[chosen]


def _lloyd(points: Points, centres: Points) -> NDArray[np.int64]:
    labels = _distances(points, centres).argmin(1)
    for _ in range(ROUNDS):
        names = np.unique(labels)
        centres = np.stack([points[labels == name].mean(0) for name in names])
        again = _distances(points, centres).argmin(1)
        if len(names) == again.max() + 1 and np.array_equal(again, labels):
            break
        labels = again
    found: NDArray[np.int64] = labels
    return found


def _distances(a: Points, b: Points) -> NDArray[Any]:
    """Return squared distances, (len(a), len(b))."""
    found: NDArray[Any] = ((a[:, None, :] - b[None, :, :]) ** 2).sum(-1)
    return found


def _spread_of(points: Points, labels: NDArray[np.int64]) -> float:
    """Return the sum of squared distances to the clusters' means."""
    groups = [points[labels == name] for name in np.unique(labels)]
    return float(sum(((group - group.mean(0)) ** 2).sum() for group in groups))
