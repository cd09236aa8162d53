"""The web server of probes and scrapes, and what it does with clients that are slow, broken or hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import orjson
import pytest
from aiohttp.web import Response

from workers.telemetry import web
from workers.telemetry.web import WebServer, respond

GET_OK = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"


def answer(accept: str) -> Response:
    return respond(HTTPStatus.OK, accept.encode() or b"none", "text/plain")


def broken(_accept: str) -> Response:
    raise RuntimeError("a bug")


def large(_accept: str) -> Response:
    return respond(HTTPStatus.OK, bytes(64_000_000), "text/plain")


@asynccontextmanager
async def serving(timeout_seconds: float = 5.0) -> AsyncIterator[WebServer]:
    routes = {"/ok": answer, "/bug": broken, "/large": large}
    server = WebServer("127.0.0.1", 0, routes, timeout_seconds=timeout_seconds)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def send(server: WebServer, request: bytes, *, end: bool = False) -> bytes:
    """All that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_get_is_answered_and_the_connection_closed() -> None:
    async with serving() as server:
        answered = await send(server, b"GET /ok?x=1 HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\n\r\n")
        head, _, body = answered.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert {"Content-Type: text/plain", "Content-Length: 3", "Connection: close"} <= set(lines)
    assert body == b"a/b"


async def test_head_is_get_without_the_body() -> None:
    async with serving() as server:
        head, _, body = (await send(server, b"HEAD /ok HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"Content-Length: 4" in head
    assert body == b""


async def test_a_load_balancers_check_needs_no_host() -> None:
    async with serving() as server:
        assert (await send(server, b"GET /ok HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200")


async def test_a_client_that_ends_its_side_with_its_request_is_answered() -> None:
    async with serving(timeout_seconds=60) as server:
        assert (await send(server, GET_OK, end=True)).endswith(b"none")
        assert await send(server, b"", end=True) == b""


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /ok/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", 405),
        (b"DELETE /ok HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET\r\n\r\n", 400),
        (b"GET /ok SPDY/3\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /ok HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 129 + b"\r\n", 400),
        (b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
)
async def test_what_is_wrong_is_said(request_head: bytes, status: int) -> None:
    async with serving() as server:
        head, _, body = (await send(server, request_head)).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert orjson.loads(body)["reason"]
    assert (b"Allow: GET, HEAD" in head) == (status == 405)


async def test_a_bug_in_a_handler_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        await send(server, b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await send(server, GET_OK)).startswith(b"HTTP/1.1 200")
    assert [record.getMessage() for record in caplog.records] == ["/bug cannot be answered"]


@pytest.mark.parametrize("request_head", [b"", b"GET /ok HTT", b"GET /ok HTTP/1.1\r\nAccept: never-ending"])
async def test_a_client_that_does_not_go_on_is_dropped_and_holds_up_nobody(request_head: bytes) -> None:
    async with serving(timeout_seconds=0.2) as server:
        slow = asyncio.create_task(send(server, request_head))
        assert (await send(server, GET_OK)).startswith(b"HTTP/1.1 200")
        assert await slow == b""


async def test_a_client_that_does_not_read_its_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 1)
    async with serving(timeout_seconds=0.2) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while not (await send(server, GET_OK)).startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.01)
        writer.close()


async def test_a_client_that_leaves_in_the_middle_ends_nothing() -> None:
    async with serving() as server:
        assert await send(server, b"GET /ok", end=True) == b""
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /ok HTTP/1.1\r\n")
        writer.transport.abort()
        assert (await send(server, GET_OK)).startswith(b"HTTP/1.1 200")


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    async with serving(timeout_seconds=60) as server:
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        assert await send(server, GET_OK) == b""
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(10):
            while not (await send(server, GET_OK)).startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(0.01)


async def test_stopping_waits_for_no_client() -> None:
    async with asyncio.timeout(10):
        async with serving(timeout_seconds=3_600) as server:
            held = asyncio.create_task(send(server, b"GET"))
            assert (await send(server, GET_OK)).startswith(b"HTTP/1.1 200")
            _, unread = await asyncio.open_connection("127.0.0.1", server.port)
            unread.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await send(server, GET_OK)).startswith(b"HTTP/1.1 200")
        assert await held == b""
        unread.close()


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match="address already in use"):
            await WebServer("127.0.0.1", server.port, {}).start()
