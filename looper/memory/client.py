"""The memory's client: one object over one file, with every verb that a research agent needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from looper.errors import ConfigError, StoreError
from looper.memory.advice import Counting, Question, suggest
from looper.memory.code_map import estimated_tokens
from looper.memory.experience import (
    Logged,
    Noise,
    add_experiment,
    add_outcome,
    measured_noise,
    parent_of,
    require_result,
)
from looper.memory.guard import Answer, Guard, gate, proposed
from looper.memory.methods import pack
from looper.memory.overview import LogRow, Stats, log, stats
from looper.memory.provenance import why
from looper.memory.quoting import READABLE, find
from looper.memory.ranking.settings import Ranking
from looper.memory.rows import Decision, Experiment, Method, Origin, Outcome, Paper, Scope, Status, scope_of
from looper.memory.search import Searcher, search_methods
from looper.memory.store import MemoryStore
from looper.memory.suggestion import Findings, MethodHit, Suggestion
from looper.records import Record

if TYPE_CHECKING:
    from looper.memory.ingestion.arxiv import Arxiv

ESTIMATE = Counting(tokens=estimated_tokens, name="estimate: four characters a token")


class Ingested(Record):
    """A source that was read."""

    paper: Paper
    passages: int
    new: bool
    """False if the memory held the very same already."""


class Imported(Record):
    """A campaign that was read from a repository."""

    campaign: str
    experiments: int
    """Those that the memory did not hold yet, or not with their results."""
    credited: int
    """Those of the whole campaign, known before or not, with a known method in their diff."""
    notes: tuple[str, ...]
    """What is odd, missing or lost."""


class ResearchFSClient:
    """Context manager over a memory file; makes it, with the bundled methods in it, unless it is there.

    An object belongs to the thread that opened it; any number of processes may hold a file open. Metrics are lower the
    better. Nothing is sent anywhere: only `ingest` of an address reads from the network.
    """

    def __init__(
        self,
        path: Path | str = "researchfs.db",
        *,
        read_only: bool = False,
        ranking: Ranking | None = None,
        guard: Guard | None = None,
        tokens: Callable[[str], int] | None = None,
        counted_by: str = "the caller's tokenizer",
        placebo: int | None = None,
    ) -> None:
        """Open the file. `tokens` counts those of a text, `placebo` seeds a control that deals out wrong evidence.

        Raises StoreError where it is no memory file, or with `read_only` where there is none.
        """
        self.store = MemoryStore.open(Path(path), read_only=read_only)
        self.ranking = ranking or Ranking()
        self.guard = guard or Guard()
        self._counting = Counting(tokens=tokens, name=counted_by) if tokens else ESTIMATE
        self._placebo = placebo
        if not read_only and not self.store.connection.execute("SELECT 1 FROM event LIMIT 1").fetchone():
            self.store.add_methods(pack.load())

    def close(self) -> None:
        """Let the file go."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------- before an experiment

    def suggest_query(
        self,
        goal: str,
        current_code: str = "",
        *,
        query: str = "",
        scope: Scope = "",
        campaign: str = "",
        seed: int = 0,
        limit: int = 6,
        budget_tokens: int = 2000,
        metric_name: str = "val_bpb",
    ) -> Suggestion:
        """Return ranked methods and the experiment brief for a goal and the code as it stands; it is remembered.

        Without a `query` the memory chooses the words: ones that led to gains until they tire, else new ones from goal
        and code. Give every campaign a `seed` of its own. Raises ConfigError for a budget that holds nothing.
        """
        asked = Question(
            goal=goal,
            code=current_code,
            query=query,
            scope=scope_of(scope),
            campaign=campaign,
            seed=seed,
            limit=limit,
            budget_tokens=budget_tokens,
            metric_name=metric_name,
        )
        return suggest(
            self.store, self._searcher, asked, settings=self.ranking, counting=self._counting, placebo=self._placebo
        )

    def propose(
        self,
        code_before: str,
        code_after: str,
        *,
        description: str = "",
        campaign: str = "",
        scope: Scope = "",
        seed: int = 0,
        budget_kind: str = "",
        budget: float = 0.0,
        parent: str = "",
    ) -> Answer:
        """Return whether a change should be run: `allow`, `caution` with the evidence, or `block` with what reopens it.

        A block is noted in the memory's log.
        """
        proposal = proposed(
            code_before,
            code_after,
            parent=parent or parent_of(self.store, code_before, campaign=campaign, scope=scope_of(scope)),
            description=description,
            campaign=campaign,
            scope=scope_of(scope),
            seed=seed,
            budget_kind=budget_kind,
            budget=budget,
        )
        answer = gate(proposal, self.store, self.guard)
        if answer.ruling == "block":
            self.store.record("blocked", proposal.id, answer.model_dump(mode="json"))
        return answer

    # ---------------------------------------------------------------- after it

    def log_experiment(
        self,
        code_after: str,
        code_before: str = "",
        *,
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
        """Add an experiment; without `code_before` it is a baseline or a replicate of one.

        Methods are credited from the syntax trees of both codes; what is only `claimed` earns nothing. The parent is
        the experiment that ran `code_before` in this scope, unless it is named. An `id` of the caller's own makes a
        campaign that is played again the very same; without one it is made here.
        """
        return add_experiment(
            self.store,
            code_after,
            before=code_before,
            retrieval=retrieval,
            description=description,
            campaign=campaign,
            scope=scope_of(scope),
            seed=seed,
            budget_kind=budget_kind,
            budget=budget,
            parent=parent,
            claimed=claimed,
            id=id,
        )

    def log_outcome(
        self,
        experiment: str,
        metric: float | None = None,
        *,
        status: Status | str = Status.OK,
        metric_name: str = "val_bpb",
        steps: int | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        cost: float | None = None,
        wall: float | None = None,
        memory: float | None = None,
        log: str = "",
        decision: Decision | str | None = None,
    ) -> Logged:
        """Add what an experiment measured, and its verdict against the noise of replicates; None is unknown, never 0.

        Without a measured noise no change is called better or worse, unless `decision` says what was done with it.
        """
        require_result(status, metric, metric_name)
        if decision is not None and decision not in list(Decision):
            raise ConfigError(f"unknown decision {decision!r}; choose one of {', '.join(Decision)}")
        outcome = Outcome(
            experiment=experiment,
            status=Status(status),
            metric_name=metric_name,
            metric=metric,
            steps=steps,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost=cost,
            wall=wall,
            memory=memory,
            log=log,
        )
        decided = Decision(decision) if decision else None
        return add_outcome(self.store, outcome, decision=decided, gate=self.ranking.gate)

    def noise(self, scope: Scope = "", metric_name: str = "val_bpb") -> Noise:
        """Return the noise of one result in a scope, as far as replicates tell."""
        return measured_noise(self.store, scope_of(scope), metric_name)

    # ---------------------------------------------------------------- looking

    def search(
        self, text: str, *, limit: int = 8, scope: Scope | None = None, origins: Iterable[Origin] | None = READABLE
    ) -> Findings:
        """Return passages and methods for any text, best first."""
        passages = find(self.store, self._searcher, text, limit=limit, scope=scope, origins=origins)
        names = {method.id: method.name for method in self.store.methods()}
        hits = search_methods(self.store.connection, text, limit)
        methods = tuple(MethodHit(method=id, name=names[id], score=score) for id, score in hits)
        return Findings(text=text, passages=tuple(passages), methods=methods)

    def method(self, id: str) -> Method:
        """Return a method. Raises StoreError that names the known ones."""
        known = {method.id: method for method in self.store.methods()}
        if id not in known:
            raise StoreError(f"no method {id!r} in {self.store.path}; it holds {', '.join(known) or 'none'}")
        return known[id]

    def why(self, experiment: str) -> str:
        """Return the chain of an experiment, from verdict to passages, as text, and what of it is missing."""
        return why(self.store, experiment)

    def log(self, *, campaign: str | None = None, limit: int = 20) -> list[LogRow]:
        """Return the last experiments, newest last."""
        return log(self.store, campaign=campaign, limit=limit)

    def stats(self) -> Stats:
        """Return counts, size, and the methods that were tried with their win rates."""
        return stats(self.store)

    # ---------------------------------------------------------------- knowledge

    def ingest(
        self,
        target: str,
        *,
        scope: Scope = "",
        arxiv: Arxiv | None = None,
        notice: Callable[[str], None] = lambda line: None,
    ) -> list[Ingested]:
        """Read an arXiv id, a repository, a folder or a file; `notice` hears what was read and skipped."""
        from looper.memory.ingestion import ingest

        found = []
        for paper, chunks in ingest(target, arxiv=arxiv, scope=scope_of(scope), notice=notice):
            new = self.store.add_paper(paper, chunks)
            found.append(Ingested(paper=paper, passages=len(chunks), new=new))
        return found

    def import_log(
        self,
        repo: Path | str,
        *,
        table: str = "results.tsv",
        code: str = "train.py",
        campaign: str = "",
        scope: Scope = "",
        sigma: float | None = None,
    ) -> Imported:
        """Read a finished campaign (a results table and its git history); methods are credited from the commits."""
        from looper.memory.importing import credited
        from looper.memory.ingestion import read_campaign

        folder = Path(repo)
        read = read_campaign(folder, table=table, code=code, campaign=campaign, scope=scope_of(scope), sigma=sigma)
        read, count = credited(read, folder, code=code, methods=self.store.methods())
        new = read.add_to(self.store)
        started = {"campaign": read.name, "new": new, "notes": list(read.notes), "at": time.time()}
        self.store.record("import", read.name, started)
        return Imported(campaign=read.name, experiments=new, credited=count, notes=read.notes)

    @cached_property
    def _searcher(self) -> Searcher:
        return Searcher(self.store.connection)
