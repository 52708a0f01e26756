"""Questions and answers written from sessions: what all formats of synthesised data share."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from looper.errors import ConfigError
from looper.learning.data.facts import Facts, facts_of
from looper.learning.data.native import in_order, text_digest
from looper.learning.data.pairs import Kind, Limits, Pair, in_turn, shares
from looper.learning.data.writing import Request, ask, prompt_text, shortened
from looper.protocols import Materials, Model
from looper.records import Episode, Example, Message

LOG = logging.getLogger(__name__)


class Synthesizer(StrEnum):
    """Who writes the pairs."""

    RULES = "rules"
    MODEL = "model"
    HYBRID = "hybrid"


@dataclass(frozen=True, kw_only=True)
class Synthesised(ABC):
    """Pairs of a question and an answer written from sessions, in one of several formats.

    They are not in the agent's own format: each is one user message and one answer, and only the answer teaches. Left
    out are pairs with an empty part, over the limits of length, or that repeat another word for word.
    """

    budget: int = 5
    """Most pairs of one session (3, 5, 10, 20 and 50 are the grid of the studies)."""
    kinds: list[Kind] = field(default_factory=lambda: list(Kind))
    """What pairs are about; the budget is shared among them, in this order."""
    synthesizer: Synthesizer = Synthesizer.RULES
    """`rules` writes from the recorded facts, `model` asks the synthesizer model, `hybrid` has it word the facts."""
    cap: int = 2
    """Most sessions of one task that are written about; 0 is no limit."""
    only_resolved: bool = True
    """Write only about sessions whose patch the hidden tests accept."""
    question_chars: int = 4000
    """Longest question with its context."""
    answer_chars: int = 4000
    """Longest answer with its reasoning."""
    transcript_chars: int = 8000
    """Most of a session's text that the model is shown."""
    temperature: float = 0.0
    """Temperature of the model's answers."""
    reply_tokens: int = 1024
    """Most tokens of one of the model's answers."""

    def __post_init__(self) -> None:
        for name in ("budget", "question_chars", "answer_chars", "transcript_chars", "reply_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name}={getattr(self, name)} must be at least 1")
        if self.cap < 0 or self.temperature < 0:
            raise ConfigError(f"data.cap={self.cap} and data.temperature={self.temperature} cannot be negative")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            known = ", ".join(kind.value for kind in Kind)
            raise ConfigError(f"data.kinds=[{', '.join(self.kinds)}] must name some of {known}, each once")

    @property
    def native(self) -> bool:
        """The examples are not sessions."""
        return False

    @property
    def demonstrates(self) -> bool:
        """The examples are written from the sessions."""
        return False

    @property
    def rejects(self) -> bool:
        """All are to be imitated."""
        return False

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the format and of its prompt file."""

    @property
    @abstractmethod
    def fields(self) -> Mapping[str, str]:
        """What the model's answer consists of: JSON key -> part of a pair."""

    @abstractmethod
    def draft(self, facts: Facts, kind: Kind, solved: Sequence[Facts]) -> list[Pair]:
        """Return the pairs of one kind that the facts give; `solved` are resolved sessions of the same task."""

    @abstractmethod
    def say(self, pair: Pair, facts: Facts) -> tuple[str, str]:
        """Return the user's message and the answer."""

    def examples(self, episodes: Sequence[Episode], seed: int, materials: Materials) -> Sequence[Example]:
        """Return the examples in order of task, attempt, digest and pair.

        Raises ConfigError if a model is to write and there is none, TrainingError if it wrote nothing valid.
        """
        sessions, solved = self._sessions(episodes, materials)
        drafts = [self._drafts(facts, solved.get(facts.task, [])) for facts in sessions]
        written = (
            drafts
            if self.synthesizer is Synthesizer.RULES
            else self._written(sessions, drafts, solved, materials, seed)
        )
        examples: list[Example] = []
        seen: set[str] = set()
        dropped = 0
        for facts, pairs in zip(sessions, written, strict=True):
            for pair in pairs[: self.budget]:
                example = self._example(pair, facts)
                text = text_digest(example.messages)
                dropped += text in seen
                if text not in seen:
                    seen.add(text)
                    examples.append(example)
        LOG.info("%d pairs of %d sessions; %d repeated others", len(examples), len(sessions), dropped)
        return tuple(examples)

    def requests(self, episodes: Sequence[Episode], materials: Materials) -> list[Request]:
        """Return what the model would be asked about some episodes."""
        sessions, solved = self._sessions(episodes, materials)
        drafts = [self._drafts(facts, solved.get(facts.task, [])) for facts in sessions]
        return [r for f, d in zip(sessions, drafts, strict=True) for r in self._asked(f, d, solved.get(f.task, []))]

    def _sessions(
        self, episodes: Sequence[Episode], materials: Materials
    ) -> tuple[list[Facts], dict[str, list[Facts]]]:
        """Return the sessions to write about, and the resolved ones of every task."""
        taken: Counter[str] = Counter()
        chosen: list[Facts] = []
        solved: dict[str, list[Facts]] = {}
        for episode in in_order(episodes):
            if episode.infrastructure or not episode.trajectory.steps:
                continue
            facts = facts_of(episode, materials)
            if facts.resolved:
                solved.setdefault(facts.task, []).append(facts)
            if (self.only_resolved and not facts.resolved) or (self.cap and taken[facts.task] >= self.cap):
                continue
            taken[facts.task] += 1
            chosen.append(facts)
        return chosen, solved

    def _drafts(self, facts: Facts, solved: Sequence[Facts]) -> list[Pair]:
        """Return the rules' pairs within the budget, one of each kind before a second of any."""
        limits, needed = self._limits, sorted(set(self.fields.values()))
        groups = [[p for p in self.draft(facts, kind, solved) if not limits.flaw(p, needed)] for kind in self.kinds]
        return in_turn(groups)[: self.budget]

    @property
    def _limits(self) -> Limits:
        return Limits(question=self.question_chars, answer=self.answer_chars)

    def _written(
        self,
        sessions: Sequence[Facts],
        drafts: Sequence[Sequence[Pair]],
        solved: Mapping[str, list[Facts]],
        materials: Materials,
        seed: int,
    ) -> list[list[Pair]]:
        writer = self._writer(materials)
        asked = [self._asked(f, d, solved.get(f.task, [])) for f, d in zip(sessions, drafts, strict=True)]
        requests = [request for one in asked for request in one]
        answers = iter(ask(writer, requests, seed=seed, temperature=self.temperature, reply_tokens=self.reply_tokens))
        return [in_turn([next(answers) for _ in one]) for one in asked]

    def _writer(self, materials: Materials) -> Model:
        if materials.writer is None:
            raise ConfigError(
                f"data.synthesizer={self.synthesizer.value} needs a model that writes: choose one with "
                "+model@synthesizer=NAME, or set data.synthesizer=rules"
            )
        return materials.writer

    def _asked(self, facts: Facts, drafts: Sequence[Pair], solved: Sequence[Facts]) -> list[Request]:
        """Return the requests about one session: one for each kind, or one for all facts to word."""
        if self.synthesizer is Synthesizer.HYBRID:
            return [self._wording(facts, drafts)] if drafts else []
        quotas = zip(self.kinds, shares(self.budget, len(self.kinds)), strict=True)
        return [self._question(facts, kind, count, solved) for kind, count in quotas if count]

    def _question(self, facts: Facts, kind: Kind, count: int, solved: Sequence[Facts]) -> Request:
        session = shortened(facts.transcript, self.transcript_chars)
        if not facts.resolved and solved:
            session += f"\n\nA session that resolved it:\n{shortened(solved[0].transcript, self.transcript_chars)}"
        prompt = prompt_text(
            self.name,
            count=str(count),
            about=prompt_text(kind.value),
            outcome="accepted" if facts.resolved else "rejected",
            keys=", ".join(f'"{key}"' for key in self.fields),
            repository=facts.repository,
            session=session,
        )
        return Request(facts=facts, prompt=prompt, fields=self.fields, limits=self._limits, count=count, kind=kind)

    def _wording(self, facts: Facts, drafts: Sequence[Pair]) -> Request:
        lines = []
        for number, pair in enumerate(drafts, 1):
            parts: dict[str, object] = {"fact": number}
            parts |= {key: getattr(pair, part) for key, part in self.fields.items()}
            keep = f"\nKeep word for word: {json.dumps(pair.key)}" if pair.key else ""
            lines.append(f"{json.dumps(parts, ensure_ascii=False)}{keep}")
        prompt = prompt_text(
            "hybrid",
            format=prompt_text(f"{self.name}_words"),
            keys=", ".join(f'"{key}"' for key in ("fact", *self.fields)),
            repository=facts.repository,
            facts="\n".join(lines),
        )
        return Request(
            facts=facts,
            prompt=prompt,
            fields=self.fields,
            limits=self._limits,
            count=len(drafts),
            drafts=tuple(drafts),
        )

    def _example(self, pair: Pair, facts: Facts) -> Example:
        question, answer = self.say(pair, facts)
        messages = (
            Message(role="user", content=question.strip()),
            Message(role="assistant", content=answer.strip()),
        )
        return Example(task=facts.task, episode=facts.episode, messages=messages, weights=(0.0, 1.0))
