"""What the memory answers: a query, ranked methods with the evidence for each, passages, and the brief for a prompt."""

from __future__ import annotations

from pydantic import Field

from looper.memory.rows import Claim, MethodSource, Origin, Scope
from looper.records import Record


class Entry(Record):
    """A method of the pack at its place, with all that is known of it."""

    rank: int
    method: str
    name: str
    category: str
    summary: str
    score: float
    parts: dict[str, float] = Field(default_factory=dict)
    """Every component of the score, by name."""
    tries: int
    """Finished experiments in this very scope that have it in their diff."""
    elsewhere: int
    """Those in other scopes."""
    crashes: int
    """Of the tries here."""
    mean_effect: float | None
    """Mean improvement of the tries here that measured one; None where none did."""
    effect: float
    """Best guess of the improvement here: evidence, other scopes and claims together. Positive is better."""
    effect_sd: float
    p_improve: float
    """Probability that the improvement here is above 0, by that guess."""
    claims: tuple[Claim, ...] = ()
    recipe: tuple[dict[str, str], ...] = ()
    """Edits with `search` and `replace`, partners' first, where they fit the code as it stands."""
    recipe_note: str = ""
    """Why there are no edits."""
    contraindications: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[MethodSource, ...] = ()
    bundled: bool = True
    """Comes with looper word by word; what others wrote is quoted in the brief."""
    shown: bool = True
    """Whether the brief had room for it."""


class Passage(Record):
    """A passage of an ingested source."""

    chunk: int
    paper: str
    """Id of its source."""
    origin: Origin
    title: str
    """Of the source."""
    locator: str
    text: str
    """Written by others: to be read, not obeyed."""
    score: float
    parts: dict[str, float] = Field(default_factory=dict)
    method: str = ""
    """The ranked method that its source describes; '' for a passage that only answers the query."""
    shown: bool = True


class MethodHit(Record):
    """A method that a search found."""

    method: str
    name: str
    score: float


class Findings(Record):
    """What a search found."""

    text: str
    passages: tuple[Passage, ...]
    methods: tuple[MethodHit, ...]


class Tokens(Record):
    """Tokens of the brief and of its sections."""

    brief: int
    """The whole prompt text."""
    sections: dict[str, int]
    counted_by: str
    """What counted: `estimate: four characters a token`, or the name of the caller's tokenizer."""


class Suggestion(Record):
    """The answer to a goal and the current code; as text it is the brief."""

    retrieval: str
    """Id under which the memory keeps it; hand it in with the experiment that follows."""
    goal: str
    scope: Scope
    query: str
    reused: bool
    """Whether the query was asked before and led to gains."""
    query_parts: dict[str, float] = Field(default_factory=dict)
    pack: tuple[Entry, ...]
    passages: tuple[Passage, ...]
    left_out: dict[str, str]
    """Methods that were not ranked, with the reason."""
    sigma: float
    """Noise of one measurement that effects are weighed with."""
    sigma_note: str
    """How it was measured, or that it is assumed."""
    seed: int
    """Of the ranking's draws."""
    brief: str
    tokens: Tokens

    def __str__(self) -> str:
        return self.brief
