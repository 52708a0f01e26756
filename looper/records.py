"""What looper writes to disk: immutable, validated records and their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields, JSON in and out."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest_of(value: Any) -> str:
    """Return the hex SHA-256 (first 32 digits) of a JSON-able value or record, keys sorted."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---------------------------------------------------------------- tasks


class Source(Record):
    """Where a workspace's tree comes from: inline files, or a commit of a git repository."""

    name: str
    """Name of the repository, for people and logs."""
    files: dict[str, str] = Field(default_factory=dict)
    """Inline tree, path -> text; committed with a fixed author and date, so its commit is a pure function."""
    repository: str = ""
    """Path of a local git repository that holds `commit`; empty for inline trees."""
    commit: str = ""
    """Base commit (full hash); empty for inline trees."""
    python: str = ""
    """Interpreter that commands find as `python`; empty for the one looper runs on (without its packages)."""
    environment: str = ""
    """Digest of what the interpreter's environment holds; empty for inline trees."""
    packages: tuple[str, ...] = ()
    """Distributions that looper runs on which commands can import, with all they require; e.g. `torch`."""
    sealed: tuple[str, ...] = ()
    """Files of the standard library (`json/decoder.py`) that commands import but cannot read, if the sandbox allows."""

    @model_serializer(mode="wrap")
    def _lean(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is empty and came later, so that digests of older tasks stay what they are."""
        return {key: value for key, value in dump(self).items() if value or key not in ("packages", "sealed")}


class Tests(Record):
    """The hidden half of a task: never in the agent's workspace, written into the judge's."""

    __test__ = False  # the name is the field's, not pytest's

    files: dict[str, str] = Field(default_factory=dict)
    """Hidden test files, path -> text."""
    patch: str = ""
    """Test patch in unified diff (SWE-bench)."""
    command: str = ""
    """Command that runs the hidden tests from the repository's root."""
    fail_to_pass: tuple[str, ...] = ()
    """Test ids that fail at the base commit and must pass."""
    pass_to_pass: tuple[str, ...] = ()
    """Test ids that pass at the base commit and must still pass."""
    seconds: float = 120.0
    """Time limit of the whole test command."""


class Task(Record):
    """One thing for the agent to do."""

    id: str
    """Unique, e.g. `bugs/conventions/main/0012` or `pytest-dev__pytest-7432`."""
    family: str
    """Group of tasks that share conventions: a bug family, or a repository."""
    world: str = ""
    """Counterbalanced world the task lives in; tasks of two worlds differ in their hidden half only."""
    pair: str = ""
    """Identity of the task across worlds; statistics count distinct pairs. Empty means `id`."""
    issue: str
    """What the agent is told."""
    source: Source
    tests: Tests
    gold: str = ""
    """Reference patch (unified diff), for leakage measures and ceilings; never shown to the agent."""

    def public(self) -> dict[str, Any]:
        """Everything about the task that can reach the agent, and so decides a session."""
        source = self.source.model_dump(mode="json", exclude={"python"})
        if self.source.commit:  # the clone's place does not matter, its content does
            source.pop("repository")
        return {"issue": self.issue, "source": source}

    @property
    def pair_id(self) -> str:
        """Identity of the task across counterbalanced worlds."""
        return self.pair or self.id


# ---------------------------------------------------------------- sessions


class Message(Record):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Exit(StrEnum):
    """Why a session ended."""

    DONE = "done"
    STEPS = "steps"
    TOKENS = "tokens"
    SECONDS = "seconds"
    FORMAT = "format"
    LOOP = "loop"
    ERROR = "error"


INFRASTRUCTURE_EXITS = frozenset({Exit.SECONDS, Exit.ERROR})
"""Exits that say something about the machine, not the agent: counted apart, retried on resume."""


class Intervention(StrEnum):
    """What a supervisor made of a step."""

    NONE = ""
    """There was no supervisor."""
    APPROVED = "approved"
    REJECTED = "rejected"
    CORRECTED = "corrected"
    UNCLEAR = "unclear"
    """The supervisor's answer was none of these; the step was taken."""


class Step(Record):
    """One turn of the agent: what it said, what was done, what it saw."""

    reply: str
    action: str
    """Kind of action: bash, read, edit, write, done or format (not an action)."""
    observation: str = ""
    ok: bool = True
    """False for a format error, a failed edit, a missing file, a blocked loop."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    metered: bool = False
    """Whether a server counted the reply's tokens; see Reply."""
    cost: float | None = None
    """Price of the reply; None where it is unknown."""
    calls: int = 1
    """Tool calls in the reply; only the first was run."""
    cut: bool = False
    """True if the reply ended at its token limit, not by the model's will."""
    pruned: bool = False
    """True if the model saw a pruned view of the conversation at this step."""
    intervention: Intervention = Intervention.NONE
    """What a supervisor made of it, in a supervised session."""


class Trajectory(Record):
    """One session, complete: what the agent saw and did, and the patch it left, whatever the exit."""

    digest: str
    """Content address: task's public half, model, skill, prompt, recalled text, budget, attempt."""
    task: str
    attempt: int = 0
    messages: tuple[Message, ...]
    """The unpruned conversation: system, user, assistant, user, ..."""
    steps: tuple[Step, ...]
    patch: str
    exit: Exit
    error: str = ""
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens that the agent generated."""
        return sum(step.completion_tokens for step in self.steps)


class Verdict(Record):
    """What the hidden tests say of a patch, in a second, fresh checkout."""

    resolved: bool
    applied: bool = True
    fail_to_pass: dict[str, bool] = Field(default_factory=dict)
    pass_to_pass: dict[str, bool] = Field(default_factory=dict)
    error: str = ""
    """Infrastructure error (the tests could not be run); empty if the tests spoke."""
    seconds: float = 0.0


class Episode(Record):
    """A judged session of one task in one world."""

    digest: str
    task: str
    family: str
    world: str = ""
    pair: str
    trajectory: Trajectory
    verdict: Verdict

    @property
    def resolved(self) -> bool:
        """Whether the hidden tests accept the patch."""
        return self.verdict.resolved

    @property
    def infrastructure(self) -> bool:
        """Whether the episode failed for reasons that are not the agent's."""
        return bool(self.verdict.error) or self.trajectory.exit in INFRASTRUCTURE_EXITS


# ---------------------------------------------------------------- knowledge


class Note(Record):
    """One recalled piece of text."""

    text: str
    source: str = ""
    """Where it comes from: an episode's digest, a chunk's locator."""


class Query(Record):
    """What is asked of the memory before a session."""

    task: str
    text: str
    limit: int = 3


class Recall(Record):
    """What the memory answered."""

    notes: tuple[Note, ...] = ()


# ---------------------------------------------------------------- skill


class Adapter(Record):
    """A LoRA adapter on disk in PEFT's format."""

    path: str
    digest: str
    base: str
    """Id of the base model that it belongs to."""


class Router(Record):
    """What weighs the experts of a mixture for a session: a folder with router.json and router.safetensors."""

    path: str
    digest: str


class Skill(Record):
    """What was learned into weights (adapters) or text (playbook); empty is the base model."""

    adapters: tuple[Adapter, ...] = ()
    playbook: str = ""
    router: Router | None = None
    """If there is one, the adapters are experts, weighed anew for every session; else their plain sum counts."""

    @property
    def digest(self) -> str:
        """Content address; a pure function of the adapters' digests, the playbook and the router's digest if any."""
        mixed = [self.router.digest] if self.router else []
        return digest_of([[a.digest for a in self.adapters], self.playbook, *mixed])


class Example(Record):
    """One training conversation with a loss weight for every message."""

    task: str
    """Task that it comes from, for caps and leakage checks."""
    episode: str
    messages: tuple[Message, ...]
    weights: tuple[float, ...]
    """Loss weight per message: 0 for system and user, and for masked assistant turns."""
    label: float = 1.0
    """1 is wanted and -1 is not (preferences); an advantage (policy gradient)."""
    group: str = ""
    """Examples that are compared with one another: a preferred and a rejected session, the attempts at one task."""
    privileged: str = ""
    """What only the teacher is shown, before the first user message (self-distillation)."""


class Conversation(Record):
    """What a model is asked: the messages so far and how to answer."""

    id: str
    """Session the conversation belongs to: key of the model's cache across turns."""
    messages: tuple[Message, ...]
    seed: int = 0
    """Seed of this reply's own random stream."""
    temperature: float = 0.0
    """0 is greedy."""
    max_tokens: int = 256


class Reply(Record):
    """What a model answered."""

    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that needed no new computation."""
    completion_tokens: int = 0
    metered: bool = False
    """Whether a server counted the tokens and may charge for them; a model that runs in this process is not metered."""
    cost: float | None = 0.0
    """Price, in the unit of the server or of the price table; None where it is unknown."""
    finish: Literal["stop", "length"] = "stop"
    intervention: Intervention = Intervention.NONE

    def taking(self, replies: Sequence[Reply]) -> Reply:
        """Return this reply with the tokens and the price of all the replies that it took."""
        costs = [reply.cost for reply in replies]
        change = {
            "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
            "cached_tokens": sum(reply.cached_tokens for reply in replies),
            "completion_tokens": sum(reply.completion_tokens for reply in replies),
            "metered": any(reply.metered for reply in replies),
            "cost": None if None in costs else sum(cost for cost in costs if cost is not None),
        }
        return self.model_copy(update=change)


class CommandResult(Record):
    """What a command in a box did."""

    exit_code: int
    output: str
    """stdout and stderr together, capped head and tail."""
    timed_out: bool = False
