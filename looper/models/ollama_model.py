"""A model behind Ollama, asked through its own client: the server's digest names it, a missing one is pulled."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from looper.errors import ConfigError, ContextOverflow, MachineError, ModelError
from looper.models.served import Crowd, Patience, Tally, Transient, Usage, direct, persevere
from looper.records import Conversation, Reply, Skill

if TYPE_CHECKING:
    from ollama import Client

LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ollama:
    """Asks an Ollama server, several conversations at once.

    The server batches what comes together, which may change a reply by rounding; for replies that company cannot
    change at all, give concurrency 1. A conversation longer than `num_ctx` would lose its oldest messages without a
    word: it ends as a context overflow instead (by an estimate, three characters a token, before it is sent).
    """

    name: str = "qwen2.5-coder:7b"
    """Model's name with its tag, as in `ollama list`."""
    host: str = "http://localhost:11434"
    """Address of the server."""
    pull: bool = True
    """Whether a missing model is fetched by the server."""
    num_ctx: int = 8192
    """Tokens of context that the server sets aside; part of the identity, since it decides what fits."""
    knows_protocol: bool = False
    """Whether the model was trained on the tool language and needs no manual."""
    keep_alive: str = "30m"
    """How long the server keeps the model in memory after a reply."""
    concurrency: int = 4
    """Requests under way at once; the server answers OLLAMA_NUM_PARALLEL of them together."""
    seconds: float = 600.0
    """Seconds without a sign of the server after which a request has failed."""
    retries: int = 3
    """Times that a request is sent again after a server's error or a time-out."""
    wait: float = 1.0
    """Seconds before the first retry; doubled for each further one, with a random part."""

    def __post_init__(self) -> None:
        for key, low in (("num_ctx", 1), ("concurrency", 1), ("retries", 0)):
            if getattr(self, key) < low:
                raise ConfigError(f"model.{key}={getattr(self, key)} is too small; choose {low} or more")
        for key in ("seconds", "wait"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"model.{key}={getattr(self, key)} is no time; choose more than 0 seconds")
        if not self.name:
            raise ConfigError("model.name is empty; give a model as `ollama list` shows it, e.g. qwen2.5-coder:7b")

    @cached_property
    def _client(self) -> Client:
        try:
            from ollama import Client
        except ImportError as error:
            raise MachineError("model=ollama needs its client; pip install 'looper[ollama]'") from error
        client = Client(host=self.host, timeout=self.seconds, mounts=direct())
        weakref.finalize(self, client.close)
        return client

    @cached_property
    def _tally(self) -> Tally:
        return Tally()

    @cached_property
    def _crowd(self) -> Crowd:
        # The model is there before it is asked, and the tally before several threads want it.
        self.digest, self._tally  # noqa: B018
        return Crowd(self._ask, width=self.concurrency)

    @cached_property
    def digest(self) -> str:
        """The server's digest of the model, which is pulled if missing.

        Raises MachineError if there is no server, ModelError if the model cannot be had.
        """
        found = self._digests()
        if self._tagged not in found:
            if not self.pull:
                known = ", ".join(sorted(found)[:10]) or "no models"
                raise ModelError(
                    f"Ollama at {self.host} has {known}, not {self.name!r}; run `ollama pull {self.name}`, or give "
                    "model.pull=true"
                )
            self._pull()
            found = self._digests()
        if self._tagged not in found:
            raise ModelError(f"Ollama at {self.host} pulled {self.name!r} but does not list it; look at `ollama list`")
        return found[self._tagged]

    @property
    def _tagged(self) -> str:
        return self.name if ":" in self.name.rsplit("/", 1)[-1] else f"{self.name}:latest"

    @property
    def id(self) -> str:
        """Identity: name, the server's digest, and the context's length."""
        return f"ollama-{self.name}-{self.digest.removeprefix('sha256:')[:12]}-ctx{self.num_ctx}"

    def decisive(self) -> dict[str, Any]:
        """Return the settings that can change a reply: not the patience, nor what the server keeps in memory."""
        patience = {"pull", "keep_alive", "seconds", "retries", "wait"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in patience}

    @property
    def weights(self) -> None:
        """The server's weights are in a format that cannot be trained."""
        return None

    @property
    def usage(self) -> Usage:
        """What the replies of this process took; they cost nothing."""
        return self._tally.usage

    def tokens(self, text: str) -> int:
        """Estimate the tokens of a text: four characters each."""
        return -(-len(text) // 4)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Ask for all replies in parallel.

        Raises ContextOverflow for a conversation that does not fit `num_ctx`, ModelError for a reply that never
        comes, MachineError if there is no server.
        """
        return self._crowd.reply(conversations)

    def with_skill(self, skill: Skill) -> Ollama:
        """Return itself; raises ModelError for adapters, which Ollama takes only as a model made with a Modelfile."""
        if skill.adapters:
            raise ModelError(
                f"Ollama cannot take the adapter {skill.adapters[0].path} while it runs; choose strategy=none, "
                "or a model that is trained here, such as model=qwen2.5-coder-7b-hf"
            )
        return self

    def forget(self, conversation: str) -> None:
        """Nothing is cached here."""

    def _ask(self, conversation: Conversation) -> Reply:
        options = {
            "num_ctx": self.num_ctx,
            "num_predict": conversation.max_tokens,
            "temperature": conversation.temperature,
            "seed": conversation.seed % 2**31,
        }
        messages = [message.model_dump() for message in conversation.messages]
        characters = sum(len(message.content) for message in conversation.messages)
        if characters // 3 > self.num_ctx:
            raise self._overflow(conversation, characters // 3)
        made = self._persevere(
            lambda: self._client.chat(self.name, messages, options=options, keep_alive=self.keep_alive)
        )
        text = made.message.content or ""
        prompt = -(-characters // 4) if made.prompt_eval_count is None else made.prompt_eval_count
        completion = self.tokens(text) if made.eval_count is None else made.eval_count
        if prompt + completion >= self.num_ctx:
            raise self._overflow(conversation, prompt + completion)
        reply = Reply(
            text=text,
            prompt_tokens=prompt,
            completion_tokens=completion,
            metered=True,
            finish="length" if made.done_reason == "length" else "stop",
        )
        self._tally.add(reply, reply.cost)
        return reply

    def _overflow(self, conversation: Conversation, tokens: int) -> ContextOverflow:
        return ContextOverflow(
            f"conversation {conversation.id!r} takes about {tokens} tokens, and Ollama drops the oldest beyond "
            f"model.num_ctx={self.num_ctx}; raise it, or prune (prompt.prune=true, a smaller budget.context)"
        )

    def _digests(self) -> dict[str, str]:
        """Return the digests of the server's models by name."""
        listed = self._persevere(lambda: self._client.list())
        return {str(row.model): str(row.digest) for row in listed.models}

    def _pull(self) -> None:
        LOG.info("Ollama at %s has no %s yet: pulling it", self.host, self.name)
        self._persevere(self._pull_once)
        LOG.info("pulled %s", self.name)

    def _pull_once(self) -> None:
        """Pull the model; what an interrupted pull left is taken up by the server."""
        told = -1
        for status in self._client.pull(self.name, stream=True):
            if not status.total:
                continue
            share = 10 * (status.completed or 0) // status.total
            if share != told:
                LOG.info("pulling %s: %d%% of %.2f GB", self.name, 10 * share, status.total / 1e9)
            told = share

    def _persevere(self, call: Callable[[], T]) -> T:
        patience = Patience(retries=self.retries, wait=self.wait, longest=60.0)
        return persevere(lambda: self._once(call), patience, f"{self.name} on Ollama at {self.host}")

    def _once(self, call: Callable[[], T]) -> T:
        import httpx
        from ollama import ResponseError
        from pydantic import ValidationError

        try:
            return call()
        except ConnectionError as error:
            raise MachineError(
                f"no Ollama server at {self.host}; start it with `ollama serve`, or set model.host to where it runs"
            ) from error
        except ResponseError as error:
            raise self._explained(error.status_code, str(error.error)) from error
        except httpx.TimeoutException as error:
            raise Transient(f"no answer within {self.seconds:g} s") from error
        except httpx.TransportError as error:
            raise Transient(f"no connection ({error})") from error
        except (ValueError, ValidationError) as error:
            raise Transient(f"the answer is no JSON of Ollama's ({str(error)[:200]})") from error

    def _explained(self, status: int, message: str) -> Exception:
        if status in (408, 429) or status >= 500:
            return Transient(f"status {status}: {message}")
        if status == 404:
            return MachineError(f"Ollama at {self.host} does not have {self.name!r} ({message}); see `ollama list`")
        return ModelError(f"Ollama at {self.host} refuses {self.name!r} (status {status}: {message})")
