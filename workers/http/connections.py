"""Bounds on what clients that are slow, broken or hostile cost: their number, and the time for a request's head.

uvicorn bounds neither: it drops a connection that idles between two requests, but not one that never sends its first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from el4ner.errors import ConfigError
from workers.config import ListenSection

__all__ = ["HttpServer", "listening_socket"]

_BACKLOG = 512
_MOST_HEAD_BYTES = 16 * 1024
_KEEP_ALIVE_SECONDS = 30


class HttpServer(uvicorn.Server):
    """Serves one application on a socket that listens already, until :attr:`should_exit` is set. Signals are its
    process's (:mod:`workers.shutdown.signalled`)."""

    def __init__(self, app: ASGIApp, settings: ListenSection, *, close_seconds: float) -> None:
        def protocol(**options: Any) -> asyncio.Protocol:
            return _BoundedConnection(settings, **options)

        # At warnings, any client could fill the log with requests that are none.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type]  # it is called as the class is
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                # Who connects is known by its address alone: no header may say otherwise.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(close_seconds)),
                h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            )
        )

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _BoundedConnection(H11Protocol):
    def __init__(self, settings: ListenSection, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings
        self._head_limit: asyncio.TimerHandle | None = None
        self._rest_limit: asyncio.TimerHandle | None = None
        self._unread_limit: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections:
            transport.abort()
            return
        self._expect_head()

    @override
    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except h11.LocalProtocolError:
            # What came after an answer is no HTTP, and there is no second answer.
            self.transport.abort()
            return
        if not self._is_rest_to_come():
            self._rest_limit = _cancelled(self._rest_limit)
        if self.conn.their_state is not h11.IDLE:
            self._head_limit = _cancelled(self._head_limit)
        elif self._head_limit is None and self.timeout_keep_alive_task is None:
            # Also after the rest of a body: uvicorn would wait for the next request for ever.
            self._expect_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._head_limit, self._rest_limit = _cancelled(self._head_limit), _cancelled(self._rest_limit)
        self._unread_limit = _cancelled(self._unread_limit)
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        """More is written than the client reads: for an answer that goes on, that may be so for ever."""
        super().pause_writing()
        self._unread_limit = self.loop.call_later(self._settings.read_seconds, self.transport.abort)

    @override
    def resume_writing(self) -> None:
        self._unread_limit = _cancelled(self._unread_limit)
        super().resume_writing()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_rest_to_come():
            # For uvicorn each part of it is a sign of life.
            self._rest_limit = self.loop.call_later(self._settings.read_seconds, self.transport.abort)
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._settings.read_seconds, self._drop_unread)

    def _is_rest_to_come(self) -> bool:
        """The request was answered by its head, and what comes of its body is thrown away."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _drop_unread(self) -> None:
        """A connection that is closed waits for its reader, for ever."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _expect_head(self) -> None:
        self._head_limit = self.loop.call_later(self._settings.read_seconds, self.transport.abort)


def _cancelled(limit: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if limit is not None:
        limit.cancel()
    return None


def listening_socket(settings: ListenSection) -> socket.socket:
    """Bound to the address, and listening.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    host, port = settings.host, settings.port
    listening: socket.socket | None = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio has small packets sent at once (TCP_NODELAY) only where the protocol is named: without it every answer
        # is 40 ms late.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        if listening is not None:
            listening.close()
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(
            f"{settings.section}.host, {settings.section}.port: cannot listen on {host}:{port} ({reason}): "
            "take an address of this machine and a port that is free (0: any)"
        ) from error
    return listening
