"""Polite GET requests: paced over all processes of this machine, patient with overload, remembered for a day."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from looper.errors import MachineError, StoreError
from looper.records import digest_of

if TYPE_CHECKING:
    import httpx

USER_AGENT = "looper (research memory; one request every 3 seconds)"
_BUSY = frozenset({429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})


class Clock(Protocol):
    """What time it is, and waiting."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class WallClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server sent, refusals included."""

    url: str
    """Where it came from in the end."""
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the body is what was asked for."""
        return self.status == 200


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How a server is treated."""

    gap: float = 3.0
    """Least seconds between the beginnings of two requests."""
    retries: int = 4
    """Requests sent after the first where a server is overloaded or does not answer."""
    longest: float = 120.0
    """Most seconds before a retry; a server that asks for more is taken at its word, and the fetch fails."""
    seconds: float = 60.0
    """How long a server may be silent."""
    most_bytes: int = 100_000_000
    """Largest body that is read."""
    fresh: float = 86_400.0
    """Seconds for which an answer is remembered."""


class Fetcher:
    """Fetches addresses one at a time, with the manners that archives ask for."""

    def __init__(
        self,
        *,
        cache: Path,
        manners: Manners | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`cache` is the folder for answers and for the time of the last request, which processes share."""
        self._cache = cache
        self._manners = manners or Manners()
        self._transport = transport
        self._clock = clock or WallClock()

    def get(self, url: str, parameters: Mapping[str, str] | None = None) -> Answer:
        """Return a server's answer, remembered or new; any status but overload is the caller's to judge.

        Raises MachineError if the server stays overloaded or unreachable, StoreError for a body that is too large and
        for a redirection to another host.
        """
        if parameters:
            url = f"{url}?{urlencode(parameters)}"
        place = self._cache / f"{digest_of(url)}.answer"
        known = self._remembered(place)
        if known is not None:
            return known
        answer = self._fetched(url)
        if answer.ok:
            self._remember(place, answer)
        return answer

    def _fetched(self, url: str) -> Answer:
        here = url
        for _ in range(6):
            status, headers, body = self._patiently(here)
            if status not in _MOVED:
                return Answer(url=here, status=status, body=body)
            there = urljoin(here, headers.get("location", ""))
            if urlsplit(there)[:2] != urlsplit(here)[:2] and not _upgraded(here, there):
                raise StoreError(f"{here} redirects to {there}, another host; give that address if you trust it")
            here = there
        raise StoreError(f"{url} redirects more than 5 times, last to {here}; check the address")

    def _patiently(self, url: str) -> tuple[int, Mapping[str, str], bytes]:
        reason, wait, asked = "", 0.0, None
        for attempt in range(self._manners.retries + 1):
            if attempt:
                wait = max(asked or 0.0, self._manners.gap * 2.0 ** (attempt - 1))
                if wait > self._manners.longest:
                    break
                self._clock.sleep(wait)
            try:
                status, headers, body = self._once(url)
            except ConnectionError as error:
                reason, asked = str(error), None
                continue
            if status not in _BUSY:
                return status, headers, body
            reason, asked = f"status {status}", _asked(headers.get("retry-after", ""), self._clock.now())
        if wait > self._manners.longest:
            more = f"it would have to wait {wait:.0f} s, more than {self._manners.longest:.0f}"
        else:
            more = f"{self._manners.retries + 1} times"
        raise MachineError(f"{url} did not answer ({reason}); {more}. Try again later, or ingest a local copy")

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        # No proxy reaches this machine for us, whatever the environment says.
        local = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
        client = httpx.Client(
            headers={"User-Agent": USER_AGENT},
            timeout=self._manners.seconds,
            transport=self._transport,
            mounts=local if self._transport is None else None,
        )
        weakref.finalize(self, client.close)
        return client

    def _once(self, url: str) -> tuple[int, Mapping[str, str], bytes]:
        """Send one request when its turn has come. Raises ConnectionError if there is no whole answer."""
        try:
            import httpx
        except ImportError as error:
            raise MachineError("fetching needs httpx; pip install 'looper[http]'") from error
        with self._turn():
            try:
                with self._client.stream("GET", url) as response:
                    body = bytearray()
                    for part in response.iter_bytes():
                        body += part
                        if len(body) > self._manners.most_bytes:
                            raise StoreError(f"{url} is larger than {self._manners.most_bytes:,} bytes; it is not read")
                    return response.status_code, dict(response.headers), bytes(body)
            except httpx.HTTPError as error:
                raise ConnectionError(f"{type(error).__name__}: {error}") from error
            except httpx.InvalidURL as error:
                raise StoreError(f"{url!r} is no address ({error})") from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold this machine's turn: one request at a time, and the gap since the one before."""
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            pace = (self._cache / "last_request").open("a+")
        except OSError as error:
            raise MachineError(
                f"the cache {self._cache} cannot be written: {error.strerror}; set XDG_CACHE_HOME to another folder"
            ) from error
        with pace as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read().strip()
            now = self._clock.now()
            last = float(text) if text.replace(".", "", 1).isdigit() else now - self._manners.gap
            # A clock that was set back leaves a time in the future: never wait longer than the gap.
            wait = min(self._manners.gap, last + self._manners.gap - now)
            if wait > 0:
                self._clock.sleep(wait)
            file.truncate(0)
            file.write(repr(max(self._clock.now(), now)))
            file.flush()
            yield

    def _remembered(self, place: Path) -> Answer | None:
        """Return a remembered answer; None if it is old, cut off or not there."""
        try:
            head, body = place.read_bytes().split(b"\n", 1)
            told = json.loads(head)
            if (
                hashlib.sha256(body).hexdigest() != told["sha"]
                or not 0 <= self._clock.now() - told["at"] < self._manners.fresh
            ):
                return None
            return Answer(url=told["url"], status=200, body=body)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, place: Path, answer: Answer) -> None:
        head = {"url": answer.url, "at": self._clock.now(), "sha": hashlib.sha256(answer.body).hexdigest()}
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_bytes(json.dumps(head).encode() + b"\n" + answer.body)
        draft.replace(place)
        for old in self._cache.glob("*.answer"):
            with suppress(FileNotFoundError):  # another process was faster
                if self._clock.now() - old.stat().st_mtime > self._manners.fresh:
                    old.unlink()


def _upgraded(here: str, there: str) -> bool:
    """Whether a redirection only goes from http to https, or from a server's alias to the server it names itself."""
    old, new = urlsplit(here), urlsplit(there)
    hosts = {old.hostname, new.hostname}
    same = old.hostname == new.hostname or all(h and (h == "arxiv.org" or h.endswith(".arxiv.org")) for h in hosts)
    return same and new.scheme == "https"


def _asked(text: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or a date."""
    if text.strip().isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())
