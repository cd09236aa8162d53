"""Writing in groups: while one group is on its way the next one gathers. What is written is the owner's; no I/O here.

The join of a partition and the combiner write so: whoever takes messages in says that there may be work
(:meth:`WriteLoop.wake`) and waits where too much has gathered (:meth:`WriteLoop.room`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["MOST_SETTLED", "WriteLoop"]

MOST_SETTLED: Final = 1_000
"""When so many settled documents wait to be written, a join is full."""

_LOOK_AGAIN_SECONDS: Final = 1.0


class WriteLoop:
    """Calls ``write()`` as long as ``has_work()``; who takes messages in waits as long as ``is_full()``."""

    def __init__(
        self, has_work: Callable[[], bool], write: Callable[[], Awaitable[None]], is_full: Callable[[], bool]
    ) -> None:
        self._has_work = has_work
        self._write = write
        self._is_full = is_full
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._writing = False
        self._ended = False

    def wake(self) -> None:
        """There may be something to write."""
        if self._has_work():
            self._wake.set()

    async def run(self) -> None:
        """For ever; raises what ``write()`` raises."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._has_work():
                    self._writing = True
                    try:
                        await self._write()
                    finally:
                        self._writing = False
                        self._moved.set()
        finally:
            self.end()

    def end(self) -> None:
        """Nothing is written any more: nobody has to wait for it."""
        self._ended = True
        self._moved.set()

    async def room(self) -> None:
        """Wait while ``is_full()`` and something is going to change that."""
        while self._is_full() and not self._ended:
            self._moved.clear()
            await self._moved.wait()

    async def drain(self, until: float) -> bool:
        """Wait until all is written, at most until the event loop's time ``until``. False: it was not."""
        loop = asyncio.get_running_loop()
        while (self._has_work() or self._writing) and not self._ended:
            left = until - loop.time()
            if left <= 0:
                return False
            self._moved.clear()
            self._wake.set()
            try:
                async with asyncio.timeout(min(left, _LOOK_AGAIN_SECONDS)):
                    await self._moved.wait()
            except TimeoutError:
                continue
        return True
