"""Several rankings made one: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CONSTANT = 60
"""How little the first places of one ranking outweigh agreement between rankings."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A chunk that was found."""

    chunk: int
    score: float
    """Sum over the rankings of 1 / (60 + rank), the first rank being 1; higher is better."""
    parts: dict[str, float] = field(default_factory=dict)
    """By ranking (`words`, `identifiers`, `vectors`): its own score; higher is better in each."""


def fuse(rankings: Mapping[str, Sequence[tuple[int, float]]], limit: int) -> list[Hit]:
    """Return the best of several rankings, each best first; older chunks first in ties."""
    scores: dict[int, float] = {}
    parts: dict[int, dict[str, float]] = {}
    for name, ranking in rankings.items():
        for rank, (chunk, score) in enumerate(ranking, start=1):
            scores[chunk] = scores.get(chunk, 0.0) + 1.0 / (CONSTANT + rank)
            parts.setdefault(chunk, {})[name] = score
    best = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[: max(limit, 0)]
    return [Hit(chunk=chunk, score=scores[chunk], parts=parts[chunk]) for chunk in best]
