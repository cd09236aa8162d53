"""Forming batches from messages that trickle or flood.

While the engine is idle, a batch is formed at once from whatever is there. While it works, the next batch fills up:
until it is full, or for at most ``seconds`` after its first message. So a lone document never waits, and a backlog is
worked on in full batches.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batcher"]

T = TypeVar("T")


class Batcher(Generic[T]):
    """A bounded buffer between one task that puts and one that takes, on one event loop.

    Args:
        size: of a full batch.
        seconds: how long a batch may wait to become full while the engine works.
        is_idle: whether the engine has nothing to do.
        weigh: what an item weighs; a batch weighs at most ``most``, or is one item.
    """

    def __init__(
        self,
        size: int,
        seconds: float,
        is_idle: Callable[[], bool],
        *,
        weigh: Callable[[T], int] = lambda _item: 1,
        most: int | None = None,
    ) -> None:
        self._size = size
        self._seconds = seconds
        self._weigh = weigh
        self._most = most
        self._is_idle = is_idle
        self._waiting: deque[T] = deque()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    async def put(self, items: Iterable[T]) -> None:
        """Add items; returns when fewer than two batches are waiting, which is how a slow engine slows its source."""
        self.add(items)
        while len(self._waiting) >= 2 * self._size:
            self._changed.clear()
            await self._changed.wait()

    def add(self, items: Iterable[T]) -> None:
        """As :meth:`put`, without waiting: for a source that knows another bound."""
        self._waiting.extend(items)
        self.wake()

    def put_back(self, items: Sequence[T]) -> None:
        """Items that came before all that wait: they are the next to be taken."""
        self._waiting.extendleft(reversed(items))
        self.wake()

    def remove(self, is_unwanted: Callable[[T], bool]) -> list[T]:
        """Take out what nobody waits for any more, of what no batch has taken yet."""
        items = list(self._waiting)
        unwanted = [item for item in items if is_unwanted(item)]
        if unwanted:
            self._waiting = deque(item for item in items if not is_unwanted(item))
            self.wake()
        return unwanted

    def wake(self) -> None:
        """Something has changed: the engine became idle, or items came."""
        self._changed.set()

    async def take(self) -> list[T]:
        """The next batch, 1 to ``size`` items, in the order in which they came."""
        loop = asyncio.get_running_loop()
        until: float | None = None
        while not self._waiting or (len(self._waiting) < self._size and not self._is_idle()):
            if not self._waiting:
                await self._wait(None)
                until = None
                continue
            until = loop.time() + self._seconds if until is None else until
            left = until - loop.time()
            if left <= 0:
                break
            await self._wait(left)
        batch = [self._waiting.popleft()]
        weight = self._weigh(batch[0])
        while self._waiting and len(batch) < self._size:
            weight += self._weigh(self._waiting[0])
            if self._most is not None and weight > self._most:
                break
            batch.append(self._waiting.popleft())
        self.wake()
        return batch

    async def _wait(self, seconds: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
