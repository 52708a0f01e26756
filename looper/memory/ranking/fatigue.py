"""Fatigue: what is passed over again and again gives way to something else."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from looper.memory.rows import Evidence, Exposure, Scope


def unheeded(
    subjects: Collection[str],
    exposures: Sequence[Exposure],
    evidence: Sequence[Evidence],
    *,
    scope: Scope,
    since: int = 0,
) -> dict[str, int]:
    """Return how often each method was passed over in this very scope since something last changed.

    Passed over is: shown, not attempted, and not below one that was. An experiment takes up one method of the list, and
    whoever takes the second has turned down the first, but has said nothing of the third. Exposures of one retrieval
    are one list, in the order of their ranks, as the store returns them. Whoever asks again before the next experiment
    and takes from one of the lists has said nothing by the others.

    What wakes a method up: another scope, a new parent (`since`: experiments that existed when the present parent
    was accepted), and evidence on the method from anywhere. An exposure of order k comes before experiment k.
    """
    start = dict.fromkeys(subjects, since)
    for e in evidence:
        for method in e.methods:
            if method in start:
                start[method] = max(start[method], e.order + 1)
    lists: dict[tuple[int, str], list[Exposure]] = {}
    for x in exposures:
        if x.scope == scope:
            lists.setdefault((x.order, x.retrieval), []).append(x)
    answered = {order for (order, _), shown in lists.items() if any(x.attempted for x in shown)}
    counts = dict.fromkeys(subjects, 0)
    for (order, _), shown in lists.items():
        taken = [place for place, x in enumerate(shown) if x.attempted]
        if not taken and order in answered:
            continue
        for x in shown[: taken[-1] if taken else len(shown)]:
            if not x.attempted and order >= start.get(x.subject, order + 1):
                counts[x.subject] += 1
    return counts


def uses_since_gain(
    query: str, exposures: Sequence[Exposure], gains: Sequence[Evidence], *, scope: Scope, since: int = 0
) -> int:
    """Return how often a query was asked in this scope since it last led to a gain.

    A query is always "attempted" when an experiment follows, so it tires by every use that brought nothing.
    """
    last = max((e.order for e in gains if e.query == query and e.scope == scope), default=-1)
    start = max(since, last + 1)
    return sum(1 for x in exposures if x.subject == query and x.scope == scope and x.order >= start)
