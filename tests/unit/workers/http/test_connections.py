"""What happens to a client that does not read its answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any
from unittest.mock import Mock

import pytest
from uvicorn.server import ServerState

from workers.config import ServeSettings
from workers.http.connections import HttpServer, listening_socket


class Pipe:
    """A transport whose other end reads nothing. ``aborted``: is set when the connection is given up."""

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads
        self.unread = 0
        self.aborted = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.unread += 0 if self.reads else len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.aborted.set()

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> Any:
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)}.get(name)

    def __getattr__(self, name: str) -> Any:
        return Mock()


async def answer(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("reads", [False, True])
async def test_an_answer_that_is_not_read_ends_the_connection(reads: bool) -> None:
    server = HttpServer(answer, ServeSettings(read_seconds=0.01), close_seconds=1)
    server.config.load()
    connection: Any = server.config.http_protocol_class(
        config=server.config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
    )
    pipe = Pipe(reads=reads)
    connection.connection_made(pipe)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await asyncio.gather(*connection.tasks)
    if not reads:
        await pipe.aborted.wait()
    connection.connection_lost(None)
    assert pipe.aborted.is_set() != reads


async def test_an_answer_that_goes_on_and_is_not_read_ends_the_connection_and_the_work_on_it() -> None:
    """Whoever opens events and reads none of them takes no connection from others."""

    async def events(scope: Any, receive: Any, send: Any) -> None:
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        connection.pause_writing()  # as the transport does when more is waiting than it should
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    server = HttpServer(events, ServeSettings(read_seconds=0.01), close_seconds=1)
    server.config.load()
    connection: Any = server.config.http_protocol_class(
        config=server.config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
    )
    pipe = Pipe(reads=False)
    connection.connection_made(pipe)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await pipe.aborted.wait()
    connection.connection_lost(None)
    await asyncio.gather(*connection.tasks)


def test_answers_are_sent_at_once() -> None:
    """asyncio switches the delay of small packets off where the socket names its protocol; otherwise 40 ms are lost."""
    with contextlib.closing(listening_socket(ServeSettings(port=0))) as listening:
        assert listening.proto == socket.IPPROTO_TCP
