"""Which words to search for: a query that led to gains, until it tires, or a new one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from looper.memory.ranking.fatigue import uses_since_gain
from looper.memory.ranking.posterior import Normal, noises, observed, posteriors
from looper.memory.ranking.score import Value, values_of
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence, Exposure, Scope
from looper.records import Record


class QueryChoice(Record):
    """What to search for, and why."""

    query: str
    reused: bool
    score: float
    parts: dict[str, float] = Field(default_factory=dict)
    """effect, effect_sd, draw (in sigma), p, gain, fatigue."""


def choose_query(
    goal_words: Sequence[str],
    evidence: Sequence[Evidence],
    exposures: Sequence[Exposure],
    scope: Scope,
    seed: int,
    settings: Ranking,
    *,
    code_words: Sequence[str] = (),
    since: int = 0,
) -> QueryChoice:
    """Return the earlier query of the highest score, or a new one if that promises more.

    A query's effect is that of the experiments that followed it, learned as a method's is. Only queries with a gain
    beyond the gate are candidates. A new query is scored by the prior: it is what tired ones lose against.
    """
    gains = _gains(evidence, settings)
    earlier = sorted({e.query for e in gains if e.query})
    renamed = [e.model_copy(update={"methods": (e.query,) if e.query else ()}) for e in evidence]
    known = posteriors([{q: 1.0} for q in earlier], observed(renamed, settings), scope=scope, settings=settings)
    fresh = _new_query(goal_words, code_words, exposures, seed, settings)
    [unknown] = posteriors([{fresh: 1.0}], [], scope=scope, settings=settings)
    value = values_of({fresh: unknown}, seed, settings)[fresh]
    choices = [_score(fresh, unknown, value, False, 0, settings)]
    normals = dict(zip(earlier, known, strict=True))
    for query, value in values_of(normals, seed, settings).items():
        uses = uses_since_gain(query, exposures, gains, scope=scope, since=since) if settings.fatigue else 0
        choices.append(_score(query, normals[query], value, True, uses, settings))
    return max(choices, key=lambda c: (c.score, c.reused, c.query))


def _gains(evidence: Sequence[Evidence], settings: Ranking) -> list[Evidence]:
    sigmas = noises(evidence, {e.scope for e in evidence}, settings.sigma)
    return [e for e in evidence if e.delta is not None and e.delta > settings.gate * sigmas[e.scope] / e.n**0.5]


def _score(query: str, normal: Normal, value: Value, reused: bool, uses: int, settings: Ranking) -> QueryChoice:
    parts = {
        "effect": normal.mean,
        "effect_sd": normal.sd,
        "draw": value.draw,
        "p": value.p,
        "gain": value.gain,
        "fatigue": settings.rho**uses,
    }
    return QueryChoice(query=query, reused=reused, score=value.p * value.gain * parts["fatigue"], parts=parts)


def _new_query(
    goal_words: Sequence[str], code_words: Sequence[str], exposures: Sequence[Exposure], seed: int, settings: Ranking
) -> str:
    """Half of the words from the goal, the rest from the code, those asked least often before first."""
    asked = Counter(word.lower() for x in exposures for word in x.subject.split())
    # A word's luck depends on the seed and itself, so that the order in which the code lists words does not matter.
    luck = {word: random.Random(f"{seed}/{word}").random() for word in (*goal_words, *code_words)}

    def least_asked(words: Sequence[str]) -> list[str]:
        return sorted(dict.fromkeys(words), key=lambda word: (asked[word.lower()], luck[word]))

    goal = least_asked(goal_words)
    code = [word for word in least_asked(code_words) if word not in set(goal)]
    share = max(settings.query_words - len(code), (settings.query_words + 1) // 2)
    kept = goal[:share]
    return " ".join([*kept, *code[: settings.query_words - len(kept)]])
