"""What models behind a server share: patience with failures, batches asked in parallel, a tally of what was used."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from looper.errors import LooperError, MachineError, ModelError
from looper.records import Conversation, Reply, digest_of

LOG = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_TRIES = 2
"""Refused connections to a server that never answered after which it is taken to be absent."""


def direct() -> dict[str, Any]:
    """Return httpx's mounts for hosts that no proxy can reach for us, whatever the environment says."""
    return {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}


class Transient(Exception):
    """A request failed in a way that may pass: overload, a server's error, a time-out, half an answer."""

    def __init__(
        self, reason: str, *, wait: float | None = None, unreachable: bool = False, never_met: bool = False
    ) -> None:
        """`wait` are the seconds that the server asks for; `unreachable` says that nobody listens.

        `never_met` says that nobody ever did: a server that was forgotten, not one that starts again.
        """
        super().__init__(reason)
        self.never_met = never_met
        self.wait = wait
        self.unreachable = unreachable

    def worded(self, reason: str) -> Transient:
        """Return the same failure in other words."""
        return Transient(reason, wait=self.wait, unreachable=self.unreachable, never_met=self.never_met)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often a request is sent again, and after how long."""

    retries: int
    """Requests sent after the first."""
    wait: float
    """Seconds before the first retry; doubled for each further one."""
    longest: float
    """Most seconds before a retry. A server that asks for more is taken at its word: the request fails at once."""

    def pause(self, failed: int, asked: float | None) -> float:
        """Return the seconds to wait after `failed` failures, at least what the server asked for.

        A random part keeps requests that failed together from coming back together; it decides nothing but time.
        """
        grown = min(self.longest, self.wait * 2.0 ** (failed - 1))
        return max(asked or 0.0, grown * random.uniform(0.5, 1.0))


def persevere(call: Callable[[], T], patience: Patience, what: str) -> T:
    """Return what `call` returns, calling again while it raises Transient.

    Raises ModelError when patience ends; MachineError if nobody ever listened, since no other request would do better.
    """
    failed = 0
    while True:
        try:
            return call()
        except Transient as error:
            failed += 1
            if error.wait is not None and error.wait > patience.longest:
                raise ModelError(
                    f"{what}: {error}; it asks to wait {error.wait:.0f} s, more than the {patience.longest:.0f} s of "
                    "model.longest_wait; raise that, or run the same command again later"
                ) from error
            if failed > patience.retries or (error.never_met and failed >= FIRST_TRIES):
                text = f"{what}: {error}, {failed} times; "
                if error.unreachable:
                    raise MachineError(
                        f"{text}start the server, or give the address that it has (model.base_url)"
                    ) from error
                raise ModelError(f"{text}raise model.retries, or run the same command again later") from error
            pause = patience.pause(failed, error.wait)
            LOG.info("%s: %s; again in %.1f s", what, error, pause)
            time.sleep(pause)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a model's replies took so far, in this process."""

    replies: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    """Price of all replies; None as soon as the price of one is unknown."""

    def plus(self, reply: Reply, cost: float | None) -> Usage:
        """Return the usage with one more reply."""
        return Usage(
            replies=self.replies + 1,
            prompt_tokens=self.prompt_tokens + reply.prompt_tokens,
            cached_tokens=self.cached_tokens + reply.cached_tokens,
            completion_tokens=self.completion_tokens + reply.completion_tokens,
            cost=None if self.cost is None or cost is None else self.cost + cost,
        )


class Tally:
    """Adds up usage from many threads."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._lock = threading.Lock()

    def add(self, reply: Reply, cost: float | None) -> None:
        """Count one reply; `cost` is None where its price is unknown."""
        with self._lock:
            self._usage = self._usage.plus(reply, cost)

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        with self._lock:
            return replace(self._usage)


class Crowd:
    """Asks a batch's conversations in parallel, and pays for none of them twice.

    If some of a batch fail, the batch fails, as the model's contract says, and is asked again in parts by
    `BatchingModel`. Everything that was heard the first time, failures too, is kept until then: it is handed out
    once, and only the conversations that failed fail.
    """

    def __init__(self, answer: Callable[[Conversation], Reply], *, width: int) -> None:
        """`answer` asks for one reply; at most `width` are asked for at once."""
        self._answer = answer
        self._width = width
        self._heard: dict[str, Reply | LooperError] = {}
        self._lock = threading.Lock()

    def reply(self, conversations: Sequence[Conversation]) -> list[Reply]:
        """Return the replies in order. Raises the first conversation's error if any failed."""
        keys = [digest_of(conversation) for conversation in conversations]
        if len(conversations) == 1:
            outcomes = [self._outcome(keys[0], conversations[0])]
        else:
            with ThreadPoolExecutor(min(self._width, len(keys) or 1), thread_name_prefix="looper-request") as pool:
                outcomes = list(pool.map(self._outcome, keys, conversations))
        errors = [outcome for outcome in outcomes if isinstance(outcome, LooperError)]
        if not errors:
            return [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        if len(keys) > 1:
            with self._lock:
                self._heard.update(zip(keys, outcomes, strict=True))
        raise errors[0]

    def _outcome(self, key: str, conversation: Conversation) -> Reply | LooperError:
        with self._lock:
            heard = self._heard.pop(key, None)
        if heard is not None:
            return heard
        try:
            return self._answer(conversation)
        except LooperError as error:
            return error
