"""``/healthz``: answers from progress, not from being alive.

503 while a worker is not ready, or has not got on with a partition that has messages for ``worker.stall_seconds``: what
Faust's users report most is a consumer that hangs in a process that answers (#175, #523, #596, #629).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from el4ner.serialize import dumps

__all__ = ["HealthServer"]


class HealthServer:
    """A small HTTP server. ``report`` gives whether all is well, and the details as JSON data."""

    def __init__(self, host: str, port: int, report: Callable[[], tuple[bool, Mapping[str, Any]]]) -> None:
        self._host = host
        self._port = port
        self._report = report
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the port is taken."""
        self._server = await asyncio.start_server(self._answer, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = await reader.readline()
                while (await reader.readline()).strip():
                    pass
            words = request.split()
            path = words[1].split(b"?")[0] if len(words) > 1 else b""
            if path == b"/healthz" and words[0] in {b"GET", b"HEAD"}:
                well, details = self._report()
                status, body = (b"200 OK" if well else b"503 Service Unavailable"), dumps(details)
            else:
                status, body = b"404 Not Found", b"{}"
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % (status, len(body)) + (b"" if words[:1] == [b"HEAD"] else body))
            await writer.drain()
        except (TimeoutError, OSError, ValueError):
            # Somebody who does not speak HTTP, or went away: nothing to tell them.
            return
        finally:
            writer.close()
