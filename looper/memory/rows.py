"""What the memory holds: papers and their chunks, methods, retrievals, experiments, outcomes and verdicts."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator

from looper.records import Record, digest_of

Scope = str
"""Where an effect was measured, general to special, e.g. `nanochat/h100/depth8`; '' holds everything.

What is known of a scope informs the scopes below it, discounted: the parent of `a/b/c` is `a/b`.
"""


def ancestors(scope: Scope) -> tuple[Scope, ...]:
    """Return the scope and its ancestors, most special first; the last is ''."""
    parts = [part for part in scope.split("/") if part]
    return tuple("/".join(parts[:n]) for n in range(len(parts), -1, -1))


def scope_of(text: str) -> Scope:
    """Return a scope as it is kept, `/a//b/` as `a/b`: what is spelled differently is not another place."""
    return ancestors(text)[0]


class Origin(StrEnum):
    """What kind of source a text comes from."""

    ARXIV = "arxiv"
    REPOSITORY = "repository"
    FOLDER = "folder"
    FILE = "file"
    SESSION = "session"
    PACK = "pack"


class Status(StrEnum):
    """How an experiment ended."""

    OK = "ok"
    CRASH = "crash"
    TIMEOUT = "timeout"


class Decision(StrEnum):
    """What became of an experiment's change."""

    KEEP = "keep"
    DISCARD = "discard"
    INCONCLUSIVE = "inconclusive"
    CRASH = "crash"


class Role(StrEnum):
    """How a method belongs to an experiment."""

    CLAIMED = "claimed"
    """The proposer said so."""
    PRESENT = "present"
    """The method's predicate holds after the change and did not before."""


class Paper(Record):
    """One source of text: a paper, a repository, a file, a session."""

    id: str
    """`arxiv:2002.05202v1`, `repository:owner/name@commit`, `session:<digest>` ..."""
    origin: Origin
    title: str
    version: str = ""
    url: str = ""
    authors: tuple[str, ...] = ()
    licence: str = ""
    sha: str = ""
    """SHA-256 of the text as it was read."""
    scope: Scope = ""


class Chunk(Record):
    """A passage that search returns."""

    locator: str
    """Where it stands in its paper: section, label, lines, page."""
    title: str = ""
    """Heading, or the words that name the passage best."""
    body: str
    identifiers: str = ""
    """Names in code (functions, files, constants) that are searched by their parts, separated by blanks."""


class Claim(Record):
    """An effect that a source reports or an earlier log observed; not measured here."""

    effect: float
    """Change of the metric by the source's account, negative is better where lower is better."""
    unit: str
    """Of the effect: `bpb`, `loss`, `percent` ..."""
    scale: str = ""
    """Model size, data and hardware of the claim."""
    n: int | None = None
    """Replicates behind it; None where the source does not say."""
    source: str = ""
    """Id of the source, with version."""
    locator: str = ""


class Method(Record):
    """A change that can be tried."""

    id: str
    name: str
    category: str
    summary: str
    recipe: tuple[dict[str, str], ...] = ()
    """Edits of train.py, each with `search` and `replace`; empty where there is none that applies."""
    applies_if: str = ""
    """Predicate over the code's syntax tree; '' holds always."""
    present_if: str = ""
    """Predicate that tells whether code has the method; '' where that cannot be told."""
    couples_with: tuple[str, ...] = ()
    contraindications: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    sources: tuple[MethodSource, ...] = ()
    licence: str = ""


class MethodSource(Record):
    """Where a method is described."""

    paper: str
    """Id of the paper; its row need not exist (a pack cites papers that were never fetched)."""
    locator: str = ""
    chunk: int | None = None
    """Row of the chunk that describes it, where it was ingested."""


class Item(Record):
    """One thing that a retrieval returned."""

    rank: int
    method: str = ""
    chunk: int | None = None
    score: float
    parts: dict[str, float] = Field(default_factory=dict)
    """Every component of the score, by name, and the draw."""
    shown: bool = True
    attempted: bool = False
    """Whether an experiment that followed had the method in its diff."""


class Retrieval(Record):
    """What was asked, and what came back."""

    id: str
    at: float
    """Seconds since the epoch."""
    goal: str
    query: str
    """The words that were searched for."""
    code_sha: str = ""
    scope: Scope = ""
    campaign: str = ""
    policy: dict[str, Any] = Field(default_factory=dict)
    """Settings of the ranking."""
    seed: int = 0
    tokens: int | None = None
    """Of the brief that was shown."""
    items: tuple[Item, ...] = ()


class Experiment(Record):
    """A change that was tried."""

    id: str
    at: float
    campaign: str = ""
    number: int = 0
    """Place in its campaign, from 0 (the baseline)."""
    parent: str = ""
    """Id of the experiment whose code it changed; '' for a baseline."""
    retrieval: str = ""
    """Id of the retrieval that it followed; '' for none."""
    diff: str = ""
    ast_hash: str = ""
    """Digest of the normalised syntax tree of the code after the change."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Resolved settings, as the run saw them: log text lies about edits."""
    scope: Scope = ""
    seed: int = 0
    budget_kind: str = ""
    """`steps`, `tokens` or `seconds`."""
    budget: float = 0.0
    description: str = ""
    methods: dict[str, Role] = Field(default_factory=dict)
    """Methods by id; only those that are PRESENT are credited."""

    @property
    def config_hash(self) -> str:
        """Digest of the resolved settings; '' where there are none."""
        return digest_of(self.config) if self.config else ""


class Outcome(Record):
    """What an experiment measured and cost; None is unknown, never 0."""

    experiment: str
    status: Status
    metric_name: str = "val_bpb"
    metric: float | None = None
    """Lower is better."""
    steps: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    """US dollars."""
    wall: float | None = None
    """Seconds."""
    memory: float | None = None
    """Peak, in bytes."""
    log: str = ""
    """Last lines, where it failed."""


class Verdict(Record):
    """What an outcome says against its baseline, given the measured noise."""

    experiment: str
    baseline: str
    """Id of the experiment that it is compared with."""
    delta: float | None = None
    """Baseline minus result: positive is better; None for a crash."""
    sigma: float | None = None
    """Standard deviation of one measurement; None where it was not measured."""
    n: int = 1
    """Replicates behind delta."""
    p_improve: float | None = None
    """Probability that the true effect is above 0."""
    decision: Decision
    decided: bool = False
    """Whether the caller made the decision; what the memory decided itself is open to new evidence."""
    freedom: int | None = None
    """Degrees of freedom behind sigma; None where sigma was given rather than estimated, or nobody noted it."""

    @field_validator("sigma")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0.0:
            raise ValueError("sigma has to be above 0; leave it out where it was not measured")
        return value


class Evidence(Record):
    """One finished experiment as the ranking sees it."""

    experiment: str
    order: int
    """Its place among all experiments of the store, from 0; recency counts in these, not in days."""
    methods: tuple[str, ...]
    """Methods that are PRESENT in its diff."""
    scope: Scope
    campaign: str = ""
    query: str = ""
    """The words of the retrieval that it followed."""
    status: Status
    delta: float | None
    sigma: float | None
    n: int = 1
    wall: float | None = None
    cost: float | None = None
    description: str = ""
    """The change in words."""
    metric_name: str = "val_bpb"
    """Of delta and sigma."""


class Exposure(Record):
    """One time that a method or a query was shown to a proposer."""

    subject: str
    """Id of the method, or the words of the query."""
    scope: Scope
    order: int
    """Experiments that the store held at that time."""
    attempted: bool
    retrieval: str = ""
    """Id of the list that it stood in; without one, what has one scope and order is one list."""


Method.model_rebuild()
