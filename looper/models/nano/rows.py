"""Decoding: rows that each carry one reply, all advanced together."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from looper.models.nano.cache import Held, Pool
from looper.models.nano.network import PAGE, Network
from looper.models.nano.shape import END, PAD
from looper.records import Conversation


@dataclass
class Job:
    """One conversation on its way to a reply."""

    index: int
    """Place in the batch."""
    conversation: Conversation
    prompt: list[int]
    held: Held | None = None
    cached: int = 0
    tokens: list[int] = field(default_factory=list)
    """What was generated, without the token that ends a turn."""
    finish: Literal["stop", "length"] = "length"


class Rows:
    """A fixed number of rows with their own copy of keys and values, laid out for one product a layer."""

    def __init__(self, network: Network, width: int) -> None:
        self._network = network
        self._width = width
        self._jobs: list[Job | None] = [None] * width
        self._streams = [random.Random(0) for _ in range(width)]
        self._tokens = [PAD] * width
        self._positions = [0] * width
        self._shares: list[tuple[float, ...]] = [()] * width
        self._keys = self._empty(1)
        self._values = self._empty(1)
        shape = network.shape
        self._slots = torch.arange(width * shape.kv_heads).view(width, shape.kv_heads) * PAGE

    def _empty(self, pages: int) -> Tensor:
        shape = self._network.shape
        return torch.zeros(shape.layers, pages, self._width, shape.kv_heads, PAGE, shape.head)

    @property
    def free(self) -> bool:
        """Whether a row waits for a job."""
        return None in self._jobs

    @property
    def busy(self) -> bool:
        """Whether any row carries a job."""
        return any(self._jobs)

    def clear(self) -> None:
        """Drop all jobs, such as those of a batch that failed."""
        for row in range(self._width):
            self._release(row)

    def _release(self, row: int) -> None:
        self._jobs[row], self._tokens[row], self._positions[row], self._shares[row] = None, PAD, 0, ()

    def admit(self, job: Job, pool: Pool) -> None:
        """Give a free row to a job whose prompt is computed, all but its last token."""
        row = self._jobs.index(None)
        assert job.held is not None
        pages = job.held.pages
        self._grow(len(pages))
        if pages:
            for mine, kept in ((self._keys, pool.keys), (self._values, pool.values)):
                mine[:, : len(pages), row] = kept[:, pages]
        self._jobs[row] = job
        self._streams[row] = random.Random(job.conversation.seed)
        self._tokens[row] = job.prompt[-1]
        self._positions[row] = len(job.prompt) - 1
        self._shares[row] = job.held.shares

    def _grow(self, pages: int) -> None:
        if (more := pages - self._keys.shape[1]) > 0:
            self._keys = torch.cat([self._keys, self._empty(more)], 1)
            self._values = torch.cat([self._values, self._empty(more)], 1)

    def step(self) -> list[Job]:
        """Generate one token in every row and return the jobs that are complete."""
        done: list[Job] = []
        for row, token in enumerate(self._next()):
            job = self._jobs[row]
            if job is None:
                continue
            self._tokens[row] = token
            self._positions[row] += 1
            if token == END:
                job.finish = "stop"
            else:
                job.tokens.append(token)
                full = self._positions[row] >= self._network.shape.positions
                if len(job.tokens) < job.conversation.max_tokens and not full:
                    continue
            done.append(job)
            self._release(row)
        return done

    def _next(self) -> list[int]:
        network, shape = self._network, self._network.shape
        pages = max(self._positions) // PAGE + 1
        self._grow(pages)
        positions = torch.tensor(self._positions)
        slots = self._slots + (positions // PAGE * self._slots.numel() * PAGE + positions % PAGE).unsqueeze(1)
        flat = slots.view(-1)

        def store(layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            out = []
            for kept, new in ((self._keys[layer], keys), (self._values[layer], values)):
                kept.view(-1, shape.head).index_copy_(0, flat, new.reshape(-1, shape.head))
                out.append(kept[:pages].view(-1, PAGE, shape.head))
            return out[0], out[1]

        column = positions.unsqueeze(1)
        tokens = torch.tensor(self._tokens).unsqueeze(1)
        term = network.term(self._shares)
        hidden = network.hidden(tokens, column, network.mask(column, pages), store, term=term)
        return self._choose(network.logits(hidden))

    def _choose(self, logits: Tensor) -> list[int]:
        """Return each row's next token: the likeliest, or drawn from its own stream where it is warm."""
        chosen: list[int] = logits.argmax(-1).tolist()
        heat = [0.0 if job is None else job.conversation.temperature for job in self._jobs]
        if not any(heat):
            return chosen
        warm = torch.tensor([t or 1.0 for t in heat]).unsqueeze(1)
        shares = torch.softmax(logits / warm, -1).cumsum(-1, dtype=torch.float64)
        draws = [stream.random() if t else 0.0 for t, stream in zip(heat, self._streams, strict=True)]
        marks = torch.tensor(draws, dtype=torch.float64).unsqueeze(1) * shares[:, -1:]
        drawn: list[int] = (shares <= marks).sum(-1).clamp_(max=logits.shape[1] - 1).tolist()
        return [d if t else c for t, d, c in zip(heat, drawn, chosen, strict=True)]
