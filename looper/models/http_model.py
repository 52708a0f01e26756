"""A model behind any server that speaks OpenAI's chat completions: a hosted one, or vLLM, llama.cpp, mlx_lm.server."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from looper.errors import ConfigError, MachineError, ModelError
from looper.models.endpoint import Endpoint, Refusal
from looper.models.folder import base_of
from looper.models.served import Crowd, Patience, Tally, Usage, persevere
from looper.protocols import Form
from looper.records import Adapter, Conversation, Reply, Skill, digest_of

LOG = logging.getLogger(__name__)

OURS = ("model", "messages", "stream", "n", "seed", "temperature", "max_tokens", "max_completion_tokens")
"""Fields of a request that looper fills."""


class Limit(Enum):
    """What a server calls the most tokens of a reply."""

    max_tokens = "max_tokens"
    max_completion_tokens = "max_completion_tokens"


@dataclass(frozen=True, kw_only=True)
class HttpModel:
    """Asks a server for chat completions, several at once, again where one fails for a passing reason.

    What cannot be known from here is whether a server answers alike twice: hosted ones change their models and their
    company in a batch without telling. Identity is therefore what was asked for, not what answered.
    """

    server: str = "http"
    """Kind of server, the first part of the identity; a name only."""
    base_url: str = "http://localhost:8000/v1"
    """Address that `/chat/completions` is appended to."""
    name: str = ""
    """Model's name at the server; empty for the only one that it serves."""
    revision: str = ""
    """Whatever tells apart models that are served under one name; part of the identity."""
    key_variable: str = ""
    """Environment variable that holds the key; empty for a server that wants none."""
    sampling: bool = True
    """Whether temperature and seed are sent; false for models that refuse them, whose replies then are the server's."""
    limit: Limit = Limit.max_tokens
    """Field that carries the most tokens of a reply: max_tokens or max_completion_tokens."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request, as the server knows them, e.g. {top_p: 0.9}; part of the identity."""
    knows_protocol: bool = False
    """Whether the model was trained on the tool language and needs no manual."""
    folder: str = ""
    """Local folder with the very weights that are served; adapters can then be trained on them."""
    lora: bool = False
    """Whether the server loads adapters while it runs (vLLM); it has to see the files under the same paths."""
    concurrency: int = 8
    """Requests under way at once."""
    seconds: float = 300.0
    """Seconds without a sign of the server after which a request has failed."""
    retries: int = 5
    """Times that a request is sent again after overload (429), a server's error (5xx) or a time-out."""
    wait: float = 1.0
    """Seconds before the first retry; doubled for each further one, with a random part. Retry-After comes first."""
    longest_wait: float = 60.0
    """Most seconds before a retry."""
    prices: dict[str, list[float]] = field(default_factory=dict)
    """Price of a million tokens by model: [prompt, cached prompt, completion]; without one, the cost is unknown."""

    def __post_init__(self) -> None:
        for key, low in (("concurrency", 1), ("retries", 0)):
            if getattr(self, key) < low:
                raise ConfigError(f"model.{key}={getattr(self, key)} is too small; choose {low} or more")
        for key in ("seconds", "wait", "longest_wait"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"model.{key}={getattr(self, key)} is no time; choose more than 0 seconds")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"model.base_url={self.base_url!r} is no address; give http://HOST:PORT/v1 or https://..."
            )
        if ours := sorted(set(OURS) & set(self.extra)):
            raise ConfigError(f"model.extra.{ours[0]} is filled by looper; leave it out of model.extra")
        for name, prices in self.prices.items():
            if len(prices) != 3:
                raise ConfigError(f"model.prices.{name}={prices} has to be [prompt, cached prompt, completion]")

    @cached_property
    def _endpoint(self) -> Endpoint:
        return Endpoint(base_url=self.base_url, key_variable=self.key_variable, seconds=self.seconds)

    @cached_property
    def _patience(self) -> Patience:
        return Patience(retries=self.retries, wait=self.wait, longest=self.longest_wait)

    @cached_property
    def _tally(self) -> Tally:
        return Tally()

    @cached_property
    def _crowd(self) -> Crowd:
        name = self._served
        self._tally, self._endpoint  # noqa: B018  made before several threads want them
        return Crowd(lambda conversation: self.ask(conversation, name), width=self.concurrency)

    @cached_property
    def _uncounted(self) -> bool:
        LOG.warning("%s does not count tokens; counts are estimates", self.base_url)  # said once
        return True

    def check(self) -> None:
        """Raise ConfigError if the key is missing."""
        if lost := self._endpoint.keyless:
            raise ConfigError(lost)

    @cached_property
    def _served(self) -> str:
        """The model's name; asked of the server where none is given. Raises MachineError if it serves several."""
        if self.name:
            return self.name
        self.check()
        names = persevere(self._endpoint.models, self._patience, f"the models of {self.base_url}")
        if len(names) != 1:
            listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "none"
            raise MachineError(f"{self.base_url} serves {len(names)} models ({listed}); give model.name one of them")
        return names[0]

    @property
    def id(self) -> str:
        """Identity: kind of server, name, and a digest of everything else that decides what is asked."""
        asked = [self.base_url.rstrip("/"), self.revision, self.sampling, self.extra]
        return f"{self.server}-{self._served}-{digest_of(asked)[:12]}"

    def decisive(self) -> dict[str, Any]:
        """Return the settings that can change a reply: not the patience, the key's place and the prices."""
        patience = {"key_variable", "seconds", "retries", "wait", "longest_wait", "prices"}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in patience}

    @property
    def weights(self) -> Path | None:
        """Folder that adapters are trained on; None unless `folder` is given."""
        return Path(self.folder).expanduser().resolve() if self.folder else None

    @property
    def forms(self) -> frozenset[Form]:
        """One adapter, where the server loads any."""
        return frozenset({Form.single} if self.lora else ())

    @property
    def usage(self) -> Usage:
        """What the replies of this process took, and cost."""
        return self._tally.usage

    def tokens(self, text: str) -> int:
        """Estimate the tokens of a text: four characters each."""
        return -(-len(text) // 4)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Ask for all replies in parallel.

        Raises ContextOverflow for a conversation that the server finds too long, ModelError for a reply that never
        comes, MachineError for what no other conversation would escape: no server, no such model, no valid key.
        """
        return self._crowd.reply(conversations)

    def ask(self, conversation: Conversation, name: str) -> Reply:
        """Return one reply of a model or adapter that is served as `name`; errors as in `reply`."""
        body = self._body(conversation, name)
        try:
            made = persevere(lambda: self._endpoint.chat(body), self._patience, f"{name} at {self.base_url}")
        except Refusal as error:
            raise self._endpoint.explained(error, name) from error
        if made.prompt_tokens is None or made.completion_tokens is None:
            self._uncounted  # noqa: B018
        prompt = sum(self.tokens(message.content) for message in conversation.messages)
        reply = Reply(
            text=made.text,
            prompt_tokens=prompt if made.prompt_tokens is None else made.prompt_tokens,
            cached_tokens=made.cached_tokens,
            completion_tokens=self.tokens(made.text) if made.completion_tokens is None else made.completion_tokens,
            metered=True,
            finish="length" if made.cut else "stop",
        )
        reply = reply.model_copy(update={"cost": self.cost(reply) if made.cost is None else made.cost})
        self._tally.add(reply, reply.cost)
        return reply

    def cost(self, reply: Reply) -> float | None:
        """Return a reply's price by the table; None if the model has none there."""
        prices = self.prices.get(self._served)
        if prices is None:
            return None
        counts = (reply.prompt_tokens - reply.cached_tokens, reply.cached_tokens, reply.completion_tokens)
        return sum(count * price for count, price in zip(counts, prices, strict=True)) / 1e6

    def with_skill(self, skill: Skill) -> HttpModel | Adapted:
        """Return the model with the skill's adapter, loaded by the server when it is first asked.

        Raises ModelError for a server that takes no adapters, for several at once, and for one of another model.
        """
        if not skill.adapters:
            return self
        first = skill.adapters[0]
        if not self.lora:
            raise ModelError(
                f"{self.server} at {self.base_url} takes no adapters ({first.path}): choose strategy=none, or serve "
                "with vLLM (--enable-lora, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True) and give model.lora=true"
            )
        if len(skill.adapters) > 1 or skill.router:
            raise ModelError(
                f"{self.server} applies one whole adapter to a request, no sum or mixture of {len(skill.adapters)} "
                f"({', '.join(adapter.path for adapter in skill.adapters)}); merge them into one, or use model=hf"
            )
        bases = [self.id, *([base_of(self.weights)] if self.weights else [])]
        if first.base not in bases and first.base.partition("/")[0] not in bases:
            raise ModelError(
                f"adapter {first.path} was trained on {first.base}, but this model is {' or '.join(bases)}; "
                "use the model that it was trained on, or train it anew"
            )
        return Adapted(model=self, adapter=first)

    def load(self, adapter: Adapter) -> str:
        """Have the server load an adapter; returns the name that it is served as."""
        name = f"looper-{adapter.digest}"
        order = {"lora_name": name, "lora_path": str(Path(adapter.path).resolve())}

        def send() -> None:
            try:
                self._endpoint.order("/load_lora_adapter", order)
            except Refusal as refusal:
                if "already" not in refusal.message:  # loaded by an earlier run
                    raise

        try:
            persevere(send, self._patience, f"loading {adapter.path} at {self.base_url}")
        except Refusal as refusal:
            raise MachineError(
                f"{self.base_url} does not load the adapter {adapter.path} ({refusal}); start vLLM with --enable-lora, "
                "--max-lora-rank of at least the adapter's rank, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            ) from refusal
        return name

    def forget(self, conversation: str) -> None:
        """Nothing is cached here."""

    def _body(self, conversation: Conversation, name: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": name,
            "messages": [message.model_dump() for message in conversation.messages],
            self.limit.value: conversation.max_tokens,
            "stream": False,
        }
        if self.sampling:  # some servers keep seeds in 31 bits
            body |= {"temperature": conversation.temperature, "seed": conversation.seed % 2**31}
        return body | self.extra


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A served model with one adapter, which the server loads when it is first asked."""

    model: HttpModel
    adapter: Adapter

    @cached_property
    def _crowd(self) -> Crowd:
        name = self.model.load(self.adapter)
        self.model._tally  # noqa: B018  made before several threads want it
        return Crowd(lambda conversation: self.model.ask(conversation, name), width=self.model.concurrency)

    @property
    def id(self) -> str:
        """Identity: the base's, and the adapter's digest."""
        return f"{self.model.id}+{self.adapter.digest}"

    @property
    def knows_protocol(self) -> bool:
        """As the base."""
        return self.model.knows_protocol

    @property
    def weights(self) -> Path | None:
        """Folder that adapters are trained on."""
        return self.model.weights

    def tokens(self, text: str) -> int:
        """Estimate the tokens of a text."""
        return self.model.tokens(text)

    def reply(self, conversations: Sequence[Conversation]) -> Sequence[Reply]:
        """Ask for all replies in parallel; errors as the base's."""
        return self._crowd.reply(conversations)

    def with_skill(self, skill: Skill) -> Adapted:
        """Return itself; raises ModelError for a second adapter."""
        if skill.adapters:
            raise ModelError(f"{self.model.server} applies one adapter to a request; {self.id} has one already")
        return self

    def forget(self, conversation: str) -> None:
        """Nothing is cached here."""
