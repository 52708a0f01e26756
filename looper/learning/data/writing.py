"""Pairs written by a model: what it is asked, and a strict reading of what it answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from string import Template

from looper.errors import ContextOverflow, TrainingError
from looper.learning.data.facts import Facts
from looper.learning.data.pairs import Kind, Limits, Pair
from looper.protocols import Model
from looper.records import Conversation, Message, Reply, digest_of

LOG = logging.getLogger(__name__)

_FENCED = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)
_NUMBER = "fact"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to the writer, and what its answer has to look like."""

    facts: Facts
    prompt: str
    fields: Mapping[str, str]
    """Key of the answer's objects -> part of a pair."""
    limits: Limits
    count: int
    """Most pairs that are taken from the answer."""
    kind: Kind | None = None
    """Kind of the pairs; None where they word the facts below."""
    drafts: tuple[Pair, ...] = ()
    """Facts to word."""


@dataclass(kw_only=True)
class Read:
    """What was read from the writer's answers."""

    pairs: list[Pair] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    """What was wrong with each pair, or whole answer, that was dropped."""


def prompt_text(name: str, **values: str) -> str:
    """Return a prompt of this package's `prompts` folder with its `$names` filled in."""
    text = files("looper.learning.data").joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(values).strip()


def shortened(text: str, limit: int) -> str:
    """Cut a long text's middle, at line ends where there are any."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[-(limit // 2) :]
    head = head[: head.rfind("\n") + 1] or f"{head}\n"
    return f"{head}[...]\n{tail[tail.find(chr(10)) + 1 :]}"


def ask(
    writer: Model, requests: Sequence[Request], *, seed: int, temperature: float, reply_tokens: int
) -> list[list[Pair]]:
    """Return the pairs that the writer gives for each request; what is malformed or too long for it is dropped.

    Raises TrainingError if not one valid pair came back, ModelError if the writer fails for another reason.
    """
    conversations = [
        Conversation(
            id=f"pairs-{digest_of([r.facts.episode, r.prompt])}",
            messages=(Message(role="user", content=r.prompt),),
            seed=int(digest_of([seed, r.facts.episode, r.prompt])[:12], 16),
            temperature=temperature,
            max_tokens=reply_tokens,
        )
        for r in requests
    ]
    replies = _replies(writer, conversations)
    for conversation in conversations:
        writer.forget(conversation.id)
    found = [_read(reply, request) for reply, request in zip(replies, requests, strict=True)]
    malformed = [flaw for one in found for flaw in one.malformed]
    if requests and not any(one.pairs for one in found) and malformed:
        raise TrainingError(
            f"none of the {len(replies)} answers of {writer.id} holds a valid pair; the first: {malformed[0]}; it "
            f"begins {(replies[0].text if replies[0] else '')[:80]!r}. Choose a stronger synthesizer model, or "
            "data.synthesizer=rules"
        )
    if malformed:
        LOG.warning("%d malformed pairs of %s were dropped; the first: %s", len(malformed), writer.id, malformed[0])
    return [one.pairs for one in found]


def _replies(writer: Model, conversations: Sequence[Conversation]) -> list[Reply | None]:
    """Return the writer's replies, None to what is too long for it; such a request takes no other with it."""
    if not conversations:
        return []
    try:
        return list(writer.reply(conversations))
    except ContextOverflow:
        if len(conversations) == 1:
            return [None]
        half = len(conversations) // 2
        return [*_replies(writer, conversations[:half]), *_replies(writer, conversations[half:])]


def _read(reply: Reply | None, request: Request) -> Read:
    if reply is None:
        return Read(malformed=["the session is too long for the writer; lower data.transcript_chars"])
    read = read_reply(reply.text, request)
    if reply.finish == "length" and read.malformed:
        read.malformed[0] += "; it was cut at its token limit, data.reply_tokens"
    return read


def read_reply(text: str, request: Request) -> Read:
    """Read an answer: a JSON list of objects with exactly the wanted keys, all strings (and the fact's number)."""
    out = Read()
    body = text.strip()
    fenced = _FENCED.match(body)
    try:
        items = json.loads(fenced[1] if fenced else body)
    except (ValueError, RecursionError) as error:
        out.malformed.append(f"the answer is not JSON ({error})")
        return out
    if not isinstance(items, list):
        out.malformed.append(f"the answer is a JSON {type(items).__name__}, not a list")
        return out
    left = dict(enumerate(request.drafts, 1))
    for item in items:
        pair = _pair(item, request, left)
        flaw = pair if isinstance(pair, str) else request.limits.flaw(pair, sorted(set(request.fields.values())))
        if flaw or isinstance(pair, str):
            out.malformed.append(flaw)
        elif len(out.pairs) < request.count:
            out.pairs.append(pair)
    if not items and request.drafts:
        out.malformed.append("the answer is an empty list")
    return out


def _pair(item: object, request: Request, left: dict[int, Pair]) -> Pair | str:
    """Return the pair that an object of the answer says, or what is wrong with it."""
    wanted = {*request.fields, _NUMBER} if request.drafts else set(request.fields)
    if not isinstance(item, dict) or set(item) != wanted:
        keys = sorted(item) if isinstance(item, dict) else type(item).__name__
        return f"a pair has {keys}, not the keys {sorted(wanted)}"
    parts = {part: item[key] for key, part in request.fields.items()}
    if not all(isinstance(value, str) for value in parts.values()):
        return "a part of a pair is not a string"
    parts = {part: value.strip() for part, value in parts.items()}
    if request.kind is not None:
        return Pair(kind=request.kind, **parts)
    number = item[_NUMBER]
    if type(number) is not int or number not in left:
        return f"a pair words fact {number!r}, which is none of those left: {sorted(left)}"
    return replace(left.pop(number), **parts)
