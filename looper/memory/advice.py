"""Makes a suggestion: choose the words, rank what the code has not, gather evidence and passages, write the brief."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from looper.errors import ConfigError, PatchError
from looper.memory.brief import Brief, Draft, write
from looper.memory.experience import measured_noise, parent_of
from looper.memory.methods.pack import bundled
from looper.memory.methods.recipes import apply, chain, excluded
from looper.memory.predicates import applies, present
from looper.memory.quoting import failures_in, passages_for
from looper.memory.ranking.logs import words_of
from looper.memory.ranking.posterior import noise
from looper.memory.ranking.queries import QueryChoice, choose_query
from looper.memory.ranking.rank import Ranked, rank, shuffled
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Evidence, Item, Method, Retrieval, Scope, Status
from looper.memory.search import Searcher, search_methods
from looper.memory.store import MemoryStore
from looper.memory.suggestion import Entry, Passage, Suggestion
from looper.memory.syntax import Code, code_of
from looper.records import digest_of


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the memory."""

    goal: str
    code: str
    query: str = ""
    scope: Scope = ""
    campaign: str = ""
    seed: int = 0
    limit: int = 6
    budget_tokens: int = 2000
    path: str = "train.py"
    metric_name: str = "val_bpb"
    """What gets better; effects on another metric are not mixed in."""

    def __post_init__(self) -> None:
        """Refuse an empty goal and an empty pack."""
        if not self.goal.strip():
            raise ConfigError("the goal is empty; say what should get better, e.g. 'improve validation bpb'")
        if self.limit < 1:
            raise ConfigError(f"limit={self.limit}; ask for at least 1 method")


@dataclass(frozen=True, kw_only=True)
class Counting:
    """How tokens are counted."""

    tokens: Callable[[str], int]
    name: str


def suggest(
    store: MemoryStore,
    searcher: Searcher,
    asked: Question,
    *,
    settings: Ranking,
    counting: Counting,
    placebo: int | None = None,
) -> Suggestion:
    """Answer a question and keep the answer as a retrieval.

    With a `placebo` seed what is known of the methods is dealt to other methods, for a control arm of equal length.
    """
    while True:
        number = store.counted("retrieval", asked.campaign)
        found, retrieval = _answer(store, searcher, asked, number, settings, counting, placebo)
        with store.transaction():
            if store.counted("retrieval", asked.campaign) == number:
                store.add_retrieval(retrieval)
                return found
        # Another process of the campaign was faster, and has these draws: ask for the next ones.


def _answer(
    store: MemoryStore,
    searcher: Searcher,
    asked: Question,
    number: int,
    settings: Ranking,
    counting: Counting,
    placebo: int | None,
) -> tuple[Suggestion, Retrieval]:
    """Return the answer that is the campaign's retrieval of a number, and how it is kept."""
    methods, evidence = store.methods(), [_of_metric(e, asked.metric_name) for e in store.evidence()]
    if placebo is not None:
        methods, evidence = _dealt(methods, evidence, asked.campaign, placebo)
    settings, sigma_note = _measured(store, asked, evidence, settings)
    code = code_of(asked.code)
    # Every retrieval of a campaign takes draws of its own, and stores the seed that gives them again.
    seed = int(digest_of([asked.seed, asked.campaign, number])[:12], 16)
    since = _since(store, code, asked)
    candidates, having, left_out = _candidates(methods, code)
    choice = _query(store, asked, candidates, code, evidence, settings, seed=seed, since=since)
    relevance = dict(search_methods(store.connection, choice.query, limit=len(methods) or 1))
    ranked = rank(
        candidates,
        evidence,
        store.exposures(),
        scope=asked.scope,
        seed=seed,
        settings=settings,
        relevance=relevance,
        present=having,
        since=since,
    )[: asked.limit]
    known = {method.id: method for method in methods}
    entries = [_entry(one, known[one.method], evidence, asked, methods) for one in ranked]
    passages = passages_for(store, searcher, choice.query, entries, asked.scope)
    brief = write(
        Draft(
            goal=asked.goal.strip(),
            place=_place(asked, ranked[0].parts["sigma"] if ranked else settings.sigma, sigma_note),
            query=choice.query,
            reused=choice.reused,
            code=asked.code,
            entries=entries,
            failures=failures_in(store, evidence, asked.scope, described=placebo is None),
            passages=passages,
            budget=asked.budget_tokens,
            tokens=counting.tokens,
            counted_by=counting.name,
            path=asked.path,
        )
    )
    entries = [entry.model_copy(update={"shown": n < brief.methods}) for n, entry in enumerate(entries)]
    passages = [one.model_copy(update={"shown": one.chunk in brief.passages}) for one in passages]
    retrieval = _retrieval(asked, choice, code, seed, settings, placebo, brief, entries, passages)
    answer = Suggestion(
        retrieval=retrieval.id,
        goal=asked.goal,
        scope=asked.scope,
        query=choice.query,
        reused=choice.reused,
        query_parts=choice.parts,
        pack=tuple(entries),
        passages=tuple(passages),
        left_out=left_out,
        sigma=ranked[0].parts["sigma"] if ranked else settings.sigma,
        sigma_note=sigma_note,
        seed=seed,
        brief=brief.text,
        tokens=brief.tokens,
    )
    return answer, retrieval


# ---------------------------------------------------------------- the question


def _of_metric(evidence: Evidence, name: str) -> Evidence:
    """Return what a run tells of a metric: one that measured another still tells that it ran, its price and crashes."""
    other = evidence.metric_name != name
    return evidence.model_copy(update={"delta": None, "sigma": None}) if other else evidence


def _measured(
    store: MemoryStore, asked: Question, evidence: Sequence[Evidence], settings: Ranking
) -> tuple[Ranking, str]:
    """Return settings whose fallback noise is what replicates measured, if they did, and where the noise comes from."""
    if not math.isnan(noise(evidence, asked.scope, math.nan)):
        return settings, "measured"
    found = measured_noise(store, asked.scope, asked.metric_name)
    if found.sigma is not None:
        return replace(settings, sigma=found.sigma), found.note
    return settings, f"assumed, not measured: {found.note}"


def _dealt(
    methods: Sequence[Method], evidence: Sequence[Evidence], campaign: str, seed: int
) -> tuple[list[Method], list[Evidence]]:
    """Deal what is known to other methods; within a campaign only what others left: its own results stay true."""
    if not campaign:
        return shuffled(methods, evidence, seed=seed)
    past = [e for e in evidence if e.campaign != campaign]
    wrong = {e.experiment: e for e in shuffled(methods, past, seed=seed)[1]}
    return list(methods), [wrong.get(e.experiment, e) for e in evidence]


def _since(store: MemoryStore, code: Code, asked: Question) -> int:
    """Return how many experiments existed when the program at hand was accepted; 0 if it never ran."""
    parent = parent_of(store, code, campaign=asked.campaign, scope=asked.scope) if asked.code else ""
    ids = [experiment.id for experiment in store.experiments()]
    return ids.index(parent) + 1 if parent else 0


def _candidates(methods: Sequence[Method], code: Code) -> tuple[list[Method], set[str], dict[str, str]]:
    """Return the methods to rank, those that the code has, and why the others are left out."""
    if not code.text.strip():
        return list(methods), set(), {}
    having = {method.id for method in methods if present(method, code)}
    owned = [method for method in methods if method.id in having]
    left_out = dict.fromkeys(sorted(having), "the code has it")
    found = []
    for method in methods:
        if method.id in having:
            continue
        clashes = excluded(method, code, owned)
        if clashes:
            left_out[method.id] = f"does not go with {', '.join(clashes)}, which the code has"
        elif not applies(method, code) and having.issuperset(method.couples_with):
            left_out[method.id] = f"does not apply: {method.applies_if} does not hold"
        else:
            found.append(method)
    return found, having, left_out


def _query(
    store: MemoryStore,
    asked: Question,
    candidates: Sequence[Method],
    code: Code,
    evidence: Sequence[Evidence],
    settings: Ranking,
    *,
    seed: int,
    since: int,
) -> QueryChoice:
    if asked.query.strip():
        return QueryChoice(query=asked.query.strip(), reused=False, score=0.0)
    goal = words_of(asked.goal) or tuple(asked.goal.lower().split())
    words = _code_words(code, candidates)
    return choose_query(
        goal, evidence, store.query_exposures(), asked.scope, seed, settings, code_words=words, since=since
    )


def _code_words(code: Code, methods: Sequence[Method]) -> list[str]:
    """Return words of the code's names that some method is described with, and the methods' own names."""
    names = [name.split(".")[-1] for name, _ in code.definitions] + list(code.knobs)
    spoken = [word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z]{2,}|[A-Z]{2,}", name)]
    told = {word for method in methods for word in words_of(f"{method.name} {method.summary} {method.category}")}
    own = [word for method in methods for word in words_of(method.id)]
    return list(dict.fromkeys([*(word for word in spoken if word in told), *own]))


# ---------------------------------------------------------------- the answer


def _entry(
    ranked: Ranked, method: Method, evidence: Sequence[Evidence], asked: Question, pack: Sequence[Method]
) -> Entry:
    tried = [e for e in evidence if method.id in e.methods]
    here = [e for e in tried if e.scope == asked.scope]
    deltas = [e.delta for e in here if e.delta is not None]
    effect, sd = ranked.parts["effect"], ranked.parts["effect_sd"]
    recipe, note = _recipe(method, asked.code, pack)
    return Entry(
        rank=ranked.rank,
        method=method.id,
        name=method.name,
        category=method.category,
        summary=method.summary,
        score=ranked.score,
        parts=ranked.parts,
        tries=len(here),
        elsewhere=len(tried) - len(here),
        crashes=sum(e.status is not Status.OK for e in here),
        mean_effect=fmean(deltas) if deltas else None,
        effect=effect,
        effect_sd=sd,
        p_improve=0.5 * math.erfc(-effect / sd / math.sqrt(2.0)) if sd > 0.0 else float(effect > 0.0),
        claims=method.claims,
        recipe=recipe,
        recipe_note=note,
        contraindications=method.contraindications,
        notes=ranked.notes,
        sources=method.sources,
        bundled=bundled(method),
    )


def _recipe(method: Method, code: str, pack: Sequence[Method]) -> tuple[tuple[dict[str, str], ...], str]:
    """Return the edits that put a method and the partners that it needs into this code; or why there are none."""
    if not method.recipe:
        return (), "the method has no recipe; write the change yourself"
    try:
        apply(method, code, pack=pack)
    except PatchError as error:
        return (), str(error)
    return tuple(chain(method, code, pack)), ""


def _place(asked: Question, sigma: float, note: str) -> str:
    parts = [
        f"Scope: {asked.scope or 'not named'}",
        f"campaign: {asked.campaign}" if asked.campaign else "",
        f"noise of one result: {sigma:.3g} ({note})",
    ]
    return "; ".join(part for part in parts if part)


def _retrieval(
    asked: Question,
    choice: QueryChoice,
    code: Code,
    seed: int,
    settings: Ranking,
    placebo: int | None,
    brief: Brief,
    entries: Sequence[Entry],
    passages: Sequence[Passage],
) -> Retrieval:
    items = []
    for entry in entries:
        chunk = next((one.chunk for one in passages if one.method == entry.method), None)
        items.append(
            Item(
                rank=entry.rank,
                method=entry.method,
                chunk=chunk,
                score=entry.score,
                parts=entry.parts,
                shown=entry.shown,
            )
        )
    for place, one in enumerate([one for one in passages if not one.method], len(items) + 1):
        items.append(Item(rank=place, chunk=one.chunk, score=one.score, parts=one.parts, shown=one.shown))
    policy = {**asdict(settings), "limit": asked.limit, "budget_tokens": asked.budget_tokens, "start_seed": asked.seed}
    return Retrieval(
        id=f"retrieval:{uuid.uuid4().hex[:16]}",
        at=time.time(),
        goal=asked.goal,
        query=choice.query,
        code_sha=code.digest if asked.code else "",
        scope=asked.scope,
        campaign=asked.campaign,
        policy={**policy, "placebo": placebo, "query": {"reused": choice.reused, "score": choice.score}},
        seed=seed,
        tokens=brief.tokens.brief,
        items=tuple(items),
    )
