"""Server-sent events: one response that goes on until the browser, or the service, ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from el4ner.serialize import dumps

__all__ = ["EventStream"]

_HEADERS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no"))
"""nginx would collect events before it hands them on."""


class EventStream:
    """An ASGI response of ``events``: each a name and its data.

    Args:
        send_seconds: how long a browser may take to read; one that does not read holds nothing back and is let go.
    """

    def __init__(self, events: AsyncGenerator[tuple[str, Any], None], *, send_seconds: float) -> None:
        self._events = events
        self._send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        writing = asyncio.create_task(self._write(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((writing, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                await writing

    async def _write(self, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            async for name, data in events:
                # JSON without line breaks, as dumps writes it, is one line of data.
                body = b"event: " + name.encode() + b"\ndata: " + dumps(data) + b"\n\n"
                async with asyncio.timeout(self._send_seconds):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
