"""One OpenAI-compatible server: requests sent with httpx, and its answers sorted into replies and kinds of failure."""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from looper.errors import ContextOverflow, LooperError, MachineError, ModelError
from looper.models.served import Transient, direct

if TYPE_CHECKING:
    import httpx

TOO_LONG = re.compile(
    r"context[_ ]?(length|size|window)|maximum (context|model) len|max_model_len|prompt is too long|exceed_context",
    re.IGNORECASE,
)
"""How servers say that a conversation does not fit: OpenAI's code, vLLM's, llama.cpp's and routers' sentences."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The parts of a chat completion that looper uses; None where the server did not tell."""

    text: str
    cut: bool
    prompt_tokens: int | None
    cached_tokens: int
    completion_tokens: int | None
    cost: float | None


class Refusal(Exception):
    """The server understood a request and will not do it (status 3xx or 4xx)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status
        self.message = message


class Endpoint:
    """A server's address and key. The key leaves this object in a request's header only: no error or log shows it."""

    def __init__(self, *, base_url: str, key_variable: str, seconds: float) -> None:
        """`seconds` is how long the server may be silent."""
        self.base_url = base_url.rstrip("/")
        self._key_variable = key_variable
        self._seconds = seconds
        self._met = False

    @property
    def keyless(self) -> str:
        """What is to be said of a key that is wanted and not there; '' if nothing is missing."""
        if not self._key_variable or os.environ.get(self._key_variable, "").strip():
            return ""
        return (
            f"the environment variable {self._key_variable} is not set; export {self._key_variable}=... with your "
            f"key for {self.base_url}, or give model.key_variable the name of another variable"
        )

    @cached_property
    def _key(self) -> str:
        if not self._key_variable:
            return ""
        if lost := self.keyless:
            raise MachineError(lost)
        return os.environ[self._key_variable].strip()

    @cached_property
    def _client(self) -> httpx.Client:
        try:
            import httpx
        except ImportError as error:
            raise MachineError("models behind a server need httpx; pip install 'looper[http]'") from error
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        client = httpx.Client(headers=headers, timeout=self._seconds, mounts=direct())
        weakref.finalize(self, client.close)
        return client

    def get(self, path: str) -> Any:
        """Return the JSON that the server has at `path`. Raises Transient, Refusal."""
        return self._parsed(self._send("GET", path, None))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the server's JSON answer to a posted one. Raises Transient, Refusal."""
        return self._parsed(self._send("POST", path, body))

    def order(self, path: str, body: Mapping[str, Any]) -> None:
        """Post JSON whose answer does not matter. Raises Transient, Refusal."""
        self._send("POST", path, body)

    def models(self) -> list[str]:
        """Return the names of the models that are served, without the adapters among them."""
        try:
            rows = self.get("/models")["data"]
            return [str(row["id"]) for row in rows if not row.get("parent")]
        except (KeyError, TypeError, AttributeError) as error:
            raise Transient(f"{self.base_url}/models is no list of models ({error!r})") from error
        except Refusal as error:
            raise self.explained(error, "") from error

    def chat(self, body: Mapping[str, Any]) -> Completion:
        """Return one chat completion. Raises Transient, Refusal."""
        try:
            return read(self.post("/chat/completions", body))
        except Transient as error:
            raise error.worded(self._hidden(str(error))[:500]) from None

    def explained(self, refusal: Refusal, name: str) -> LooperError:
        """Return the error that a refusal amounts to; a MachineError where no other conversation would do better."""
        message = refusal.message
        if refusal.status < 400:
            return MachineError(f"{self.base_url} sends elsewhere ({refusal}); give model.base_url that address")
        if refusal.status in (400, 413, 422) and TOO_LONG.search(message):
            return ContextOverflow(f"{name} at {self.base_url}: {message}")
        if refusal.status in (401, 402, 403) or "insufficient_quota" in message:
            variable = self._key_variable or "none: give model.key_variable the name of an environment variable"
            return MachineError(
                f"{self.base_url} refuses the key ({refusal}); the key's variable: {variable}; "
                "set a valid key with credit left"
            )
        if refusal.status == 404:
            return MachineError(
                f"{self.base_url} does not have {name or 'this address'} ({message}); it has: {self._has()}; choose "
                "one of them as model.name, or set model.base_url (it ends in /v1 for most servers)"
            )
        return ModelError(f"{name} at {self.base_url} refuses the request ({refusal}); look at model.extra")

    def _has(self) -> str:
        try:
            names = [str(row["id"]) for row in self.get("/models")["data"]]
        except (Transient, Refusal, KeyError, TypeError, AttributeError):
            return "unknown, it lists no models"
        return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "no models"

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> str:
        client = self._client
        import httpx

        try:
            answer = client.request(method, f"{self.base_url}{path}", json=body)
        except httpx.TimeoutException as error:
            reason = f"no answer within {self._seconds:g} s ({type(error).__name__})"
            raise Transient(reason, unreachable=isinstance(error, httpx.ConnectTimeout)) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise MachineError(
                f"model.base_url={self.base_url!r} is no address ({error}); give http(s)://..."
            ) from error
        except httpx.RequestError as error:
            reason = f"no connection to {self.base_url} ({error})"
            refused = isinstance(error, httpx.ConnectError)
            raise Transient(reason, unreachable=refused, never_met=refused and not self._met) from error
        self._met = True
        if answer.is_success:
            return answer.text
        message = complaint(self._hidden(answer.text))
        if answer.is_redirect:
            message = f"to {answer.headers['location']}"
        quota = "insufficient_quota" in message  # an empty account, which waiting does not fill
        if answer.status_code in (408, 409, 425, 429) or answer.status_code >= 500:
            if not quota:
                wait = asked_wait(answer.headers.get("retry-after", ""))
                raise Transient(f"status {answer.status_code}: {message}", wait=wait)
        raise Refusal(answer.status_code, message)

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise Transient(f"the answer is no JSON ({error}): {self._hidden(text)[:200]!r}") from error

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def read(data: Any) -> Completion:
    """Return what a chat completion says. Raises Transient for one that is not whole, or that tells of an error."""
    try:
        if data.get("error"):  # routers pass on an upstream failure with status 200
            raise Transient(f"the server answers with an error: {complaint(json.dumps(data))}")
        choice = data["choices"][0]
        if choice.get("finish_reason") == "error":
            raise Transient("the server broke off the reply")
        usage = data.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        return Completion(
            text=str(choice["message"].get("content") or ""),
            cut=choice.get("finish_reason") == "length",
            prompt_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count(cached) or 0,
            completion_tokens=_count(usage.get("completion_tokens")),
            cost=float(usage["cost"]) if isinstance(usage.get("cost"), int | float) else None,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise Transient(f"the answer is no chat completion ({error!r}): {data}") from error


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def complaint(text: str) -> str:
    """Return the message of an error's body: `{"error": {"message": ..., "code": ...}}` in its many forms."""
    try:
        error = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:500] or "no message"
    for key in ("error", "message", "detail"):
        if isinstance(error, dict) and error.get(key):
            extra = error.get("code") or error.get("type") or ""
            error = error[key]
            if isinstance(error, str) and extra:
                error = f"{error} ({extra})"
    return str(error)[:500]


def asked_wait(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date; None if it is neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
