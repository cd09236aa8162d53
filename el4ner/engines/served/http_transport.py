"""Requests to model servers: many at a time, tried again where that may help, and errors that say what to do."""

from __future__ import annotations

import logging
import math
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson

from el4ner.config import ServerSettings
from el4ner.engines.served.routing import Router
from el4ner.errors import ConfigError, EngineAwayError, EngineError, EngineOutOfMemoryError

__all__ = ["Ask", "Line", "Transport"]

log = logging.getLogger(__name__)
_SHORTEST_WAIT: Final = 0.01
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may pass, at another server or later."""
_LONGEST_ANSWER: Final = 64 << 20
"""Bytes. An answer that is longer is none of a model's."""
_SHOWN: Final = 300
"""Characters of what a server says of an error."""
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Line:
    """Requests that begin alike: they go to the server that answered the last of them, while it is well."""

    hint: int = 0
    server: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A POST of JSON. ``body`` makes it, and ``read`` takes from the answer what is wanted, when it is on its way: what
    is sent and answered of thousands of requests need not be held at the same time."""

    path: str
    body: Callable[[], Mapping[str, Any]]
    read: Callable[[Any], Any] = lambda answer: answer
    line: Line = field(default_factory=Line)


class _Abandoned(Exception):  # noqa: N818 - no error: it is never seen outside
    """Another request of the same call has failed."""


class _CallState:
    """What the requests of one call know of each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.abandoned = False
        self.failures = 0
        """Of servers, since one of them answered last."""

    def heard(self, *, ok: bool, new: bool) -> None:
        """A server answered, or failed."""
        with self._lock:
            self.failures = 0 if ok else self.failures + new


class Transport:
    """One pool of connections to all servers of a member.

    Args:
        name: the member's, for errors.
        settings: addresses, key, times.
        transport: of httpx; None: the network.
        clock: seconds.
        pause: waits so many seconds, or less if the transport is interrupted.
        chance: between 0 and 1.

    Raises:
        ConfigError: the certificates or an address cannot be read.
    """

    def __init__(
        self,
        name: str,
        settings: ServerSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._urls = [_checked(name, url) for url in settings.urls]
        self._tries = settings.tries
        self._interrupted = threading.Event()
        self._sleep = pause or self._interrupted.wait
        self._router = Router(len(self._urls), settings.connections, clock, chance)
        self._check: Callable[[int], str | None] | None = None
        workers = len(self._urls) * settings.connections
        key = settings.api_key
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {},
            timeout=httpx.Timeout(settings.request_seconds, connect=settings.connect_seconds, pool=None),
            limits=httpx.Limits(max_connections=workers, max_keepalive_connections=workers),
            verify=_certificates(name, settings),
            transport=transport,
            trust_env=False,  # a proxy for the web is not meant for model servers, and would see the key
        )
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._sockets_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"{name}-server")

    @property
    def urls(self) -> Sequence[str]:
        """Base addresses, without a slash at the end."""
        return self._urls

    @property
    def healthy(self) -> list[bool]:
        """Of each server: whether it answered when it was asked last."""
        return [not self._router.on_trial(index) for index in range(len(self._urls))]

    def limit(self, index: int, most: int) -> None:
        """Send one server fewer requests at a time than there are connections."""
        self._router.limit(index, most)

    def missing(self, index: int) -> None:
        """One server is not there yet: it is tried later, and checked first."""
        self._router.failed(index)

    def check_returned(self, check: Callable[[int], str | None]) -> None:
        """``check`` is asked before a server that was away gets work again: what is wrong with it now, or None."""
        self._check = check

    def ask_all(self, rows: Sequence[Sequence[Ask]]) -> list[list[Any]]:
        """What was read of the answers' JSON. Rows are asked at the same time, the asks of a row one after another.

        When an ask fails, those on their way are waited for, and the others are not sent.

        Raises:
            EngineAwayError: no server answered one of them, or :meth:`interrupt` was called.
            EngineError: a server refused one, its answer is no JSON, or ``read`` says so.
            EngineOutOfMemoryError: a server ran out of memory.
        """
        call = _CallState()
        if len(rows) == 1:
            return [self._ask_row(rows[0], call)]
        futures = [self._pool.submit(self._ask_row, row, call) for row in rows]
        wait(futures)
        # The one that failed first, not one that was given up for it.
        for future in futures:
            error = future.exception()
            if error is not None and not isinstance(error, _Abandoned):
                raise error
        return [future.result() for future in futures]

    def get(self, index: int, path: str) -> Any | None:
        """The JSON under ``path`` of one server; None if it has no such page, or another kind of one. Tried once.

        Raises:
            EngineAwayError: it does not answer.
            EngineError: it demands another key.
        """
        return self._once(index, "GET", path, None)

    def post(self, index: int, path: str, body: Mapping[str, Any]) -> Any | None:
        """As :meth:`get`, with a body."""
        return self._once(index, "POST", path, body)

    def interrupt(self) -> None:
        """From any thread: requests that wait and those on their way end at once, and so do later ones."""
        self._interrupted.set()
        self._router.close()
        with self._sockets_lock:
            for connection in list(self._sockets):
                _cut(connection)

    def close(self) -> None:
        """End all requests and close the connections. May be called twice."""
        self.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _ask_row(self, row: Sequence[Ask], call: _CallState) -> list[Any]:
        try:
            return [self._ask(ask, call) for ask in row]
        except BaseException:
            call.abandoned = True
            raise

    def _ask(self, ask: Ask, call: _CallState) -> Any:
        content = orjson.dumps(ask.body())
        last = ""
        for attempt in range(1, self._tries + 1):
            index = self._take(ask.line, call)
            url = self._urls[index]
            well, rest = False, 0.0
            try:
                wrong = self._check(index) if self._check is not None and self._router.on_trial(index) else None
                if wrong is None:
                    status, answered, after = self._send("POST", url + ask.path, content)
                    well, rest = status not in _BUSY, _seconds(after)
                    if well:
                        ask.line.server = index
                        return ask.read(self._read(url, status, answered))
                    wrong = f"{status}: {_message(answered)}"
                    if b"out of memory" in answered.lower():
                        raise EngineOutOfMemoryError(f"{self._name}: {url}: {wrong}")
                last = f"{url}: {wrong}"
            except httpx.RequestError as error:
                last = f"{url}: {_said(error)}"
            except EngineAwayError as error:  # of the check
                last = str(error).removeprefix(f"{self._name}: ")
            finally:
                call.heard(ok=well, new=self._router.done(index, ok=well, rest=rest))
            self._go_on()
            log.warning("server-failed", extra={"engine": self._name, "error": last, "attempt": attempt})
            # Servers that rest are tried by one request at a time: the others need not wait for their turn to fail.
            if call.failures >= self._tries * len(self._urls):
                break
        tries = max(attempt, call.failures)
        raise EngineAwayError(f"{self._name}: no answer after {tries} tries, the last from {last}")

    def _take(self, line: Line, call: _CallState) -> int:
        """A server that does not rest."""
        while True:
            self._go_on()
            if call.abandoned:
                raise _Abandoned
            index = self._router.take(home=line.server, hint=line.hint)
            if index is not None:
                return index
            self._sleep(max(_SHORTEST_WAIT, self._router.rest()))

    def _once(self, index: int, method: str, path: str, body: Mapping[str, Any] | None) -> Any | None:
        url = self._urls[index]
        self._go_on()
        try:
            status, answered, _ = self._send(method, url + path, None if body is None else orjson.dumps(body))
        except httpx.RequestError as error:
            self._go_on()
            raise EngineAwayError(f"{self._name}: {url} does not answer: {_said(error)}") from error
        if status in (401, 403):
            raise self._refused(url, status)
        if status in _BUSY and status != 500:
            raise EngineAwayError(f"{self._name}: {url} answers {status}: {_message(answered)}")
        if status >= 400:
            return None
        try:
            return orjson.loads(answered)
        except orjson.JSONDecodeError:
            return None

    def _send(self, method: str, url: str, content: bytes | None) -> tuple[int, bytes, str]:
        """Status, body, and the header ``Retry-After``."""
        with self._client.stream(
            method, url, content=content, headers=_JSON, extensions={"trace": self._notice}
        ) as response:
            pieces, size = [], 0
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > _LONGEST_ANSWER:
                    raise EngineError(
                        f"{self._name}: {url} answers more than {_LONGEST_ANSWER >> 20} MiB", code="engine-garbage"
                    )
            return response.status_code, b"".join(pieces), response.headers.get("Retry-After", "")

    def _notice(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep a hold of every connection, for :meth:`interrupt`."""
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        connection = info["return_value"].get_extra_info("socket")
        if isinstance(connection, socket.socket):
            with self._sockets_lock:
                self._sockets.add(connection)
                if self._interrupted.is_set():
                    _cut(connection)

    def _read(self, url: str, status: int, answered: bytes) -> Any:
        if status in (401, 403):
            raise self._refused(url, status)
        if status >= 400:
            reason = _message(answered)
            what = "takes too many tokens" if "context" in reason.lower() else "was refused"
            raise EngineError(f"{self._name}: a request {what}: {url}: {status}: {reason}")
        try:
            return orjson.loads(answered)
        except orjson.JSONDecodeError as error:
            raise EngineError(f"{self._name}: {url} did not answer JSON: {error}", code="engine-garbage") from error

    def _refused(self, url: str, status: int) -> EngineError:
        return EngineError(f"{self._name}: {url} answers {status}: set models.{self._name}.server.api_key to its key")

    def _go_on(self) -> None:
        if self._interrupted.is_set():
            raise EngineAwayError(f"{self._name}: interrupted, since the process stops")


def _cut(connection: socket.socket) -> None:
    """Wake whoever waits for it: closing would not. (Not by a TLS socket's own method, which takes the TLS state away
    from the thread that uses it.)"""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _checked(name: str, url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"models.{name}.server.urls: {url!r} is no address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"models.{name}.server.urls: {url!r} is no address such as http://10.0.0.5:8000")
    if parsed.userinfo:
        # Addresses are shown in errors and logs.
        raise ConfigError(f"models.{name}.server.urls: an address with a password: set server.api_key instead")
    return url.rstrip("/").removesuffix("/v1")


def _certificates(name: str, settings: ServerSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"models.{name}.server.ca_file: {settings.ca_file} cannot be read: {error}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _message(answered: bytes) -> str:
    """What the server says of an error, in one line."""
    text = answered[: 8 * _SHOWN].decode(errors="replace")
    try:
        body = orjson.loads(answered)
        error = body.get("error", body.get("detail", body.get("message", text)))
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (orjson.JSONDecodeError, AttributeError):
        pass
    return " ".join(text.split())[:_SHOWN]


def _seconds(after: str) -> float:
    """Of ``Retry-After``. (A date there is not understood: the backoff is waited for.)"""
    try:
        seconds = float(after)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
