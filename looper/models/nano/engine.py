"""Batched generation: prompts computed in tiles, replies decoded in rows of one fixed width.

A reply is a pure function of its own conversation, bit for bit: not of its company, its row, the
batch size, or what a cache held. Two rules give that. Every step runs at a fixed shape, whatever is
in it (see network.py). And only prompt steps fill what is kept between turns: a reply's own tokens
are computed again as a part of the next prompt, so that cached and fresh keys are the same bits.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from looper.chat import render
from looper.errors import ContextOverflow, ModelError
from looper.models.jobs import common, reply_of
from looper.models.nano.cache import Held, Pool
from looper.models.nano.mixture import Mixture
from looper.models.nano.network import PAGE, Network
from looper.models.nano.routing import Routing
from looper.models.nano.rows import Job, Rows
from looper.models.nano.shape import END, PAD, START, Shape
from looper.models.nano.tiles import prefill
from looper.models.nano.tokenizer import SPECIALS
from looper.models.nano.weights import Weights
from looper.records import Conversation, Message, Reply

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Engine:
    """Answers batches of conversations, and keeps their computed prompts until they are forgotten."""

    def __init__(
        self, weights: Weights, tokenizer: Tokenizer, *, width: int = 16, mixture: Mixture | None = None
    ) -> None:
        if width < 1:
            raise ModelError(f"width {width} is not possible; it is the number of rows decoded together, 1 or more")
        if tokenizer.get_vocab_size() > weights.shape.vocab:
            raise ModelError(
                f"the tokenizer has {tokenizer.get_vocab_size()} tokens but the weights only {weights.shape.vocab}; "
                "take both from one folder"
            )
        specials = [tokenizer.token_to_id(name) for name in SPECIALS]
        if specials != [START, END, PAD]:
            raise ModelError(
                f"the tokenizer has {', '.join(SPECIALS)} as {specials}, not {[START, END, PAD]}: this engine would "
                "not see where a reply ends; give model=hf for models with other tokenizers"
            )
        self._network = Network(weights, mixture)
        self._tokenizer = tokenizer
        self._width = width
        self._forgotten: deque[str] = deque()
        self._pool = Pool(weights.shape, limit=4 * width * -(-weights.shape.positions // PAGE))
        self._rows = Rows(self._network, width)
        self._routing = None if mixture is None else Routing(self._network, mixture, self._pool)
        self._lock = threading.Lock()

    @property
    def shape(self) -> Shape:
        """The architecture that runs."""
        return self._network.shape

    def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
        """Answer a batch, in its order; thread-safe, one batch at a time, on one thread.

        Raises ModelError for a prompt that fills the context.
        """
        prompts = [self._prompt(conversation) for conversation in conversations]
        replies: dict[int, Reply] = {}
        with self._lock, _one_thread(), torch.inference_mode():
            while self._forgotten:
                self._pool.drop(self._forgotten.popleft())
            jobs = deque(
                Job(index, conversation, prompt)
                for index, (conversation, prompt) in enumerate(zip(conversations, prompts, strict=True))
            )
            rows, ready = self._rows, deque[Job]()
            rows.clear()
            while jobs or ready or rows.busy:
                while rows.free:
                    if not ready:
                        ready.extend(self._prepare(jobs))
                    if not ready:
                        break
                    job = ready.popleft()
                    rows.admit(job, self._pool)
                for job in rows.step():
                    replies[job.index] = reply_of(job, self._tokenizer)
        return [replies[index] for index in range(len(conversations))]

    def forget(self, conversation: str) -> None:
        """Free what is kept of a conversation."""
        self._forgotten.append(conversation)  # dropped before the next batch: a batch under way holds the pool

    def _prompt(self, conversation: Conversation) -> list[int]:
        ids = self._encode(render(conversation.messages, reply=True))
        if len(ids) >= self.shape.positions:
            raise ContextOverflow(
                f"conversation {conversation.id!r} has a prompt of {len(ids)} tokens, but the model's context of "
                f"{self.shape.positions} must hold it and a reply; shorten what the agent is shown"
            )
        return ids

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _prepare(self, jobs: deque[Job]) -> list[Job]:
        """Compute the prompts of the next conversations: as many as there are rows, each key once."""
        shares = self._shares(jobs)
        group: dict[str, Job] = {}
        while jobs and len(group) < self._width and jobs[0].conversation.id not in group:
            job = jobs.popleft()
            group[job.conversation.id] = job
        work: list[tuple[Held, list[int]]] = []
        for key, job in group.items():
            job.held = self._pool.take(key)
            if job.held.shares != shares.get(key, ()):  # keys of other weights are of no use
                job.held.ids, job.held.shares = [], shares[key]
            target = job.prompt[:-1]  # the last token is the first one decoded
            fresh = 0 if job.held.ids else self._adopt_system(job, target, group)
            known = common(job.held.ids, target)
            job.cached = known - fresh
            del job.held.ids[known:]
            self._pool.resize(job.held, len(target), group)
            work.append((job.held, target))
        prefill(self._network, self._pool, work)
        return list(group.values())

    def _shares(self, jobs: Sequence[Job]) -> dict[str, tuple[float, ...]]:
        """Return the weights of a mixture's experts for the next conversations; a session keeps those of its start."""
        if self._routing is None:
            return {}
        found: dict[str, tuple[float, ...]] = {}
        for job in itertools.islice(jobs, self._width):
            asked = next((m.content for m in job.conversation.messages if m.role == "user"), "")
            found.setdefault(job.conversation.id, self._routing.shares(self._encode(asked)))
        return found

    def _adopt_system(self, job: Job, target: list[int], group: dict[str, Job]) -> int:
        """Start a new conversation from the computed system prompt, which all of a run's sessions share.

        Returns the tokens that had to be computed for it.
        """
        assert job.held is not None
        shares = job.held.shares
        if shares and max(shares) < 1.0:
            return 0  # hardly another session has the same weights
        system: list[Message] = []
        for message in job.conversation.messages:
            if message.role != "system":
                break
            system.append(message)
        ids = self._encode(render(system)) if system else []
        if not ids or target[: len(ids)] != ids:
            return 0
        key = f"system\0{ids}{shares or ''}"
        shared, kept = self._pool.take(key), {*group, key}
        shared.shares = shares
        fresh = 0 if shared.ids else len(ids)
        if fresh:
            self._pool.resize(shared, len(ids), kept)
            prefill(self._network, self._pool, [(shared, ids)])
        self._pool.resize(job.held, len(ids), kept)
        self._pool.copy(shared, job.held)
        return fresh


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch inside, what it was outside: more threads reorder sums and wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
