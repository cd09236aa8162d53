"""A TCP proxy that can hold bytes back and deliver them late, slow them down, or cut connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from workers.local.ports import LOOPBACK

__all__ = ["Proxy"]

_CHUNK = 64 * 1024


class Proxy:
    """Forwards every port of ``targets`` (port → port it leads to) on the loopback address, on a thread of its own.

    While it *holds*, it goes on accepting connections and reading from both sides, and keeps what it reads. What it
    kept is delivered when it is released, in order, also to a side whose other side has gone meanwhile: a request that
    its sender has long given up on arrives all the same, which is what a network does that was cut for a while.
    """

    def __init__(self, targets: Mapping[int, int]) -> None:
        self._targets = dict(targets)
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._refuse = False
        self._delay = 0.0
        self._connections: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def hold(self) -> None:
        """Let nothing through from now on, and keep it."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def release(self) -> None:
        """Deliver what was kept, and go on."""
        self._loop.call_soon_threadsafe(self._open.set)

    def cut(self) -> None:
        """Break every connection, with what is on its way, and every new one."""
        self._call(self._cut(refuse=True))

    def mend(self) -> None:
        """Accept connections again."""
        self._refuse = False

    def slow_down(self, seconds: float) -> None:
        """Have everything that is read wait so long before it goes on; 0: no more."""
        self._delay = seconds

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)  # type: ignore[arg-type]

    async def _start(self) -> None:
        for port, target in self._targets.items():
            self._servers.append(
                await asyncio.start_server(
                    lambda reader, writer, target=target: self._connect(reader, writer, target),  # type: ignore[misc]
                    LOOPBACK,
                    port,
                )
            )

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        await self._cut(refuse=True)

    async def _cut(self, *, refuse: bool) -> None:
        self._refuse = refuse
        connections = set(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        task = asyncio.current_task()
        if task is None or self._refuse:
            writer.transport.abort()
            return
        self._connections.add(task)
        other: asyncio.StreamWriter | None = None
        try:
            # Nobody gets through while it holds, not even to be accepted by the other side.
            await self._open.wait()
            answers, other = await asyncio.open_connection(LOOPBACK, target)
            await asyncio.gather(self._pump(reader, other), self._pump(answers, writer))
        except OSError:
            return  # one of the two does not answer, or is gone
        except asyncio.CancelledError:
            return  # cut; nothing waits for this task
        finally:
            self._connections.discard(task)
            for end in (writer, other):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Hand on what comes until its end, which is handed on too."""
        kept: asyncio.Queue[bytes] = asyncio.Queue()
        keeping = asyncio.create_task(self._keep(source, kept))
        try:
            while chunk := await kept.get():
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open.wait()
                sink.write(chunk)
                await sink.drain()
            with contextlib.suppress(OSError):
                sink.write_eof()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep(self, source: asyncio.StreamReader, kept: asyncio.Queue[bytes]) -> None:
        try:
            # Read at once, however long it may not go on: a sender that gives up with a reset would take along what
            # is still in the kernel.
            while chunk := await source.read(_CHUNK):
                kept.put_nowait(chunk)
        except OSError:
            pass
        kept.put_nowait(b"")
