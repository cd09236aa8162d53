"""A web server just large enough for probes and scrapes: GET and HEAD of a few paths, one answer per connection.

It runs on the worker's own event loop, on purpose: a loop that is stuck does not answer, and a probe sees that. It
expects clients that are slow, broken or hostile: every connection has a time limit, every line and the number of
connections a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from el4ner.serialize import dumps

__all__ = ["Handler", "Response", "WebServer"]

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 100
_MAX_LINE: Final = 8 * 1024
_MAX_HEADERS: Final = 100
_METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler answers."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[str], Response]
"""Takes the value of the ``Accept`` header (empty if there is none). Called on the event loop: it must not block."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    accept: str


class WebServer:
    """Answers ``routes``, which map a path to its handler.

    Args:
        host: an address or name to listen on.
        port: 0 takes a free one.
        routes: other paths are 404, other methods 405.
        timeout_seconds: for a whole connection, from its opening to the last byte of the answer.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Handler], *, timeout_seconds: float = 5.0) -> None:
        self._host = host
        self._port = port
        self._routes = dict(routes)
        self._timeout = timeout_seconds
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the port is taken."""
        self._server = await asyncio.start_server(self._connected, self._host, self._port, limit=_MAX_LINE)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and drop the connections that are open."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(self._timeout):
                writer.write(await self._answer(reader))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            # Too slow, or gone: nobody to tell.
            return
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            request = await _read(reader)
        except ValueError as error:
            return _message(_problem(HTTPStatus.BAD_REQUEST, str(error)))
        handler = self._routes.get(request.path)
        if handler is None:
            response = _problem(HTTPStatus.NOT_FOUND, f"there are {', '.join(self._routes)}")
        elif request.method not in _METHODS:
            response = _problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{' and '.join(_METHODS)} only")
        else:
            try:
                response = handler(request.accept)
            except Exception:
                log.exception("%s cannot be answered", request.path)
                response = _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug; the worker's log has it")
        return _message(response, body=request.method != "HEAD")


async def _read(reader: asyncio.StreamReader) -> _Request:
    """The head of a request. Raises ``ValueError`` if it is none, or a line of it is too long."""
    words = (await reader.readline()).decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError("not an HTTP/1 request")
    accept: list[str] = []
    for _ in range(_MAX_HEADERS):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            return _Request(words[0], words[1].partition("?")[0], ",".join(accept))
        name, _, value = line.partition(":")
        if name.lower() == "accept":
            accept.append(value.strip())
    raise ValueError(f"more than {_MAX_HEADERS} headers")


def _problem(status: HTTPStatus, reason: str) -> Response:
    return Response(status, dumps({"status": status.phrase, "reason": reason}))


def _message(response: Response, *, body: bool = True) -> bytes:
    head = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if response.status is HTTPStatus.METHOD_NOT_ALLOWED:
        head.append(f"Allow: {', '.join(_METHODS)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (response.body if body else b"")
