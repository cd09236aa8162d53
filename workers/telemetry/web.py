"""The web server of probes and metrics: GET and HEAD of a few paths, one answer per connection (aiohttp).

It runs on the worker's own event loop, on purpose: a loop that is stuck does not answer, and a probe sees that. It
expects clients that are slow, broken or hostile: every connection has a time limit, and their number a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web
from typing_extensions import override

from el4ner.serialize import dumps
from workers.telemetry.health import Health

__all__ = ["HealthServer", "PathHandler", "WebServer", "respond"]

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 100
_METHODS: Final = ("GET", "HEAD")
_STOP_SECONDS: Final = 1.0


PathHandler = Callable[[str], web.Response]
"""Takes the value of the ``Accept`` header (empty if there is none), and answers with :func:`respond`. Called on the
event loop: it must not block."""


class WebServer:
    """Answers ``routes``, which map a path to its handler.

    Args:
        host: an address or name to listen on.
        port: 0 takes a free one.
        routes: other paths are 404, other methods 405.
        timeout_seconds: for a whole connection, from its opening to the last byte of the answer.
    """

    def __init__(
        self, host: str, port: int, routes: Mapping[str, PathHandler], *, timeout_seconds: float = 5.0
    ) -> None:
        self._host = host
        self._port = port
        self._routes = dict(routes)
        self._timeout = timeout_seconds
        self._listener: asyncio.Server | None = None
        self._server: web.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the port is taken."""
        server = web.Server(self._answer)
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Connection(server, self._timeout), self._host, self._port
        )
        self._server = server
        self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and drop the connections that are open."""
        if self._listener is None or self._server is None:
            return
        self._listener.close()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._server.shutdown(_STOP_SECONDS)
        await self._listener.wait_closed()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        handler = self._routes.get(request.path)
        if handler is None:
            return _problem(HTTPStatus.NOT_FOUND, f"there are {', '.join(self._routes)}")
        if request.method not in _METHODS:
            response = _problem(HTTPStatus.METHOD_NOT_ALLOWED, f"{' and '.join(_METHODS)} only")
            response.headers["Allow"] = ", ".join(_METHODS)
            return response
        try:
            return handler(",".join(request.headers.getall("Accept", ())))
        except Exception:
            log.exception("%s cannot be answered", request.path)
            return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug; the worker's log has it")


class HealthServer(WebServer):
    """``/livez``, ``/readyz``, ``/healthz`` (both) and, where there is an ``exposition``, ``/metrics``.

    Start it before the models are loaded, so that a platform can tell a slow start from a dead process.

    Args:
        host: as :class:`WebServer`.
        port: as :class:`WebServer`.
        health: what there is to say.
        exposition: from an ``Accept`` header to metrics and their content type: :meth:`Metrics.exposition`.
    """

    def __init__(
        self, host: str, port: int, health: Health, *, exposition: Callable[[str], tuple[bytes, str]] | None = None
    ) -> None:
        routes = {
            "/livez": _probe(health.live),
            "/readyz": _probe(health.ready),
            "/healthz": _probe(health.well),
        }
        if exposition is not None:
            routes["/metrics"] = _scrape(exposition)
        super().__init__(host, port, routes)


class _Connection(web.RequestHandler):
    """A connection that is dropped when its time is over, or at once where there are too many.

    aiohttp has a time limit for clients that send nothing, and none for clients that do not read their answer.
    """

    def __init__(self, server: web.Server, timeout_seconds: float) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None)  # type: ignore[arg-type]  # no log
        self._server = server
        self._timeout = timeout_seconds
        self._time_limit: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        abort = cast(asyncio.Transport, transport).abort
        if len(self._server.connections) > MAX_CONNECTIONS:
            abort()
        self._time_limit = asyncio.get_running_loop().call_later(self._timeout, abort)

    @override
    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks; aiohttp would hang up unanswered
        """The client sends no more, and may still read: ``nc`` ends its side together with its request."""
        self.close()
        return True

    @override
    async def start(self) -> None:
        try:
            await super().start()
        finally:
            # aiohttp leaves the connection open where it has given up the wait for a request.
            if self.transport is not None:
                self.transport.close()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        if self._time_limit is not None:
            self._time_limit.cancel()
        super().connection_lost(exc)

    @override
    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Broken requests get JSON too, and are not logged: any client could fill the log."""
        return _problem(HTTPStatus(status), message or "not an HTTP/1 request")


def respond(status: HTTPStatus, body: bytes, content_type: str = "application/json") -> web.Response:
    """An answer after which the connection is closed."""
    # Server: aiohttp would tell its version and Python's.
    headers = {"Content-Type": content_type, "Cache-Control": "no-store", "Server": "el4ner"}
    response = web.Response(status=status, body=body, headers=headers)
    response.force_close()
    return response


def _problem(status: HTTPStatus, reason: str) -> web.Response:
    return respond(status, dumps({"status": status.phrase, "reason": reason}))


def _probe(judge: Callable[[], tuple[bool, Mapping[str, Any]]]) -> PathHandler:
    def answer(_accept: str) -> web.Response:
        well, details = judge()
        return respond(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, dumps(details))

    return answer


def _scrape(exposition: Callable[[str], tuple[bytes, str]]) -> PathHandler:
    def answer(accept: str) -> web.Response:
        body, content_type = exposition(accept)
        return respond(HTTPStatus.OK, body, content_type)

    return answer
