"""A conversation on its way to a reply, for engines in this process: its prompt, its random draws, what ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from looper.chat import render
from looper.errors import ContextOverflow, ModelError
from looper.models.folder import ends_of, positions_of
from looper.records import Conversation, Reply

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Finished(Protocol):
    """What a reply is made of, as an engine has left it."""

    prompt: list[int]
    cached: int
    tokens: list[int]
    """What was generated, without the token that ends a turn."""
    finish: Literal["stop", "length"]


def reply_of(job: Finished, tokenizer: Tokenizer) -> Reply:
    """Return a finished job's reply; the token that ended it was generated too."""
    return Reply(
        text=tokenizer.decode(job.tokens, skip_special_tokens=True),
        prompt_tokens=len(job.prompt),
        cached_tokens=job.cached,
        completion_tokens=len(job.tokens) + (job.finish == "stop"),
        finish=job.finish,
    )


@dataclass(kw_only=True)
class Job:
    """One conversation on its way to a reply."""

    conversation: Conversation
    prompt: list[int]
    draws: Tensor
    """Uniform random numbers, one for each token of the reply, in float64."""
    limit: int
    cached: int = 0
    computed: Any = None
    """What the engine holds of the prompt: keys and values, as it keeps them."""
    tokens: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"
    done: bool = False


class Jobs:
    """Opens and closes the jobs of one model: its tokenizer, its chat template, its end tokens, its context."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, template: str) -> None:
        """Read what the folder of the weights says. Raises ModelError if it names no token that ends a reply."""
        self._tokenizer, self._template = tokenizer, template
        self._ends = frozenset(ends_of(folder, tokenizer.get_vocab()))
        self._positions = positions_of(folder)

    def opened(self, conversation: Conversation) -> Job:
        """Return a conversation's job. Raises ContextOverflow for a prompt that fills the context."""
        text = self._rendered(conversation)
        prompt = self._tokenizer.encode(text, add_special_tokens=False).ids
        room = self._positions - len(prompt) if self._positions else conversation.max_tokens
        if room < 1:
            raise ContextOverflow(
                f"conversation {conversation.id!r} has {len(prompt)} tokens, the model reads {self._positions}; "
                "prune it (prompt.prune=true, a smaller budget.context)"
            )
        limit = min(conversation.max_tokens, room)
        stream = torch.Generator().manual_seed(conversation.seed % 2**63)
        draws = torch.rand(limit, generator=stream, dtype=torch.float64)
        return Job(conversation=conversation, prompt=prompt, draws=draws, limit=limit)

    def _rendered(self, conversation: Conversation) -> str:
        from jinja2 import TemplateError

        try:
            return render(conversation.messages, template=self._template, reply=True)
        except TemplateError as error:
            raise ModelError(
                f"the model's chat template cannot render a session of system, user and assistant turns ({error}); "
                "choose another model, or mend its chat_template, which may use the messages only"
            ) from error

    def take(self, group: Sequence[Job], tokens: Sequence[int]) -> None:
        """Add a token to each job that is not done; an end token is not a part of the reply."""
        for job, token in zip(group, tokens, strict=False):
            if job.done:
                continue
            if token in self._ends:
                job.finish, job.done = "stop", True
                continue
            job.tokens.append(token)
            job.done = len(job.tokens) >= job.limit

    def closed(self, job: Job) -> Reply:
        """Return a finished job's reply."""
        return reply_of(job, self._tokenizer)


def rows_of(group: list[Job], width: int) -> list[Job]:
    """Return a group filled up to a fixed width; rows without a conversation repeat the first one's."""
    return group + [group[0]] * (width - len(group))


def draws_of(group: Sequence[Job], rows: int) -> Tensor:
    """Return the random numbers (rows, steps) of a group, zeros where a row has no conversation or a shorter limit."""
    draws = torch.zeros(rows, max(job.limit for job in group), dtype=torch.float64)
    for row, job in enumerate(group):
        draws[row, : job.limit] = job.draws
    return draws


def common(a: list[int], b: list[int]) -> int:
    """Return the length of the longest common prefix."""
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    return next(i for i in range(limit) if a[i] != b[i])


def drawn(logits: Tensor, heat: Tensor, draws: Tensor) -> Tensor:
    """Return each row's next token: the likeliest at temperature 0, else the one that its own draw falls on. (B,)."""
    best = logits.argmax(dim=-1)
    if not bool((heat > 0).any()):
        return best
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    scaled = logits.to(wide) / heat.to(wide).clamp(min=1e-6)[:, None]
    heights = scaled.softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    goals = draws.to(heights.device, wide)[:, None] * heights[:, -1:]
    picks = torch.searchsorted(heights, goals, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)
    return torch.where(heat > 0, picks, best)
