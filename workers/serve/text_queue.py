"""What is accepted and not answered yet: bounded, and asked in batches that requests share.

    a request's texts → waiting → at most two batches at the engine → answered, each by itself

On one event loop; the pipeline is called on its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Final, Protocol

from el4ner.errors import El4nerError
from workers.config import ServeSettings, WorkerSettings
from workers.serve.tag_answers import Tagged
from workers.serve.tag_requests import TextToTag
from workers.stages.batching import Batcher
from workers.stages.failure_limit import FailureLimit
from workers.stages.unread_pools import ALL_READ, UnreadPools

__all__ = ["Asker", "QueueFullError", "StoppedError", "TextQueue", "WaitingText"]

_MOST_AT_ENGINE: Final = 2
"""One batch at work and one that waits for the engine: a third one would only wait longer."""
_LONGEST_RETRY_SECONDS: Final = 60
_RECENT: Final = 0.3
"""The weight of the latest batch in the rate."""


class QueueFullError(El4nerError):
    """There is no room for a request. ``retry_seconds``: when there may be."""

    code = "queue-full"

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class StoppedError(El4nerError):
    """The service stopped before the text was answered."""

    code = "stopping"


class Asker(Protocol):
    """Has texts tagged on the pipeline's thread."""

    def __call__(self, texts: Sequence[TextToTag]) -> Future[list[Tagged]]:
        """A result for each, in their order; an EngineError that may pass."""


class WaitingText:
    """A text, and what will be known of it. Cancel ``answer`` where nobody waits for it any more."""

    __slots__ = ("answer", "text")

    def __init__(self, text: TextToTag) -> None:
        self.text = text
        self.answer: asyncio.Future[Tagged] = asyncio.get_running_loop().create_future()


class TextQueue:
    """Texts of all requests.

    Args:
        ask: has a batch tagged.
        pools: those that have yet to be read. Texts of these wait until theirs is, and others pass.
        default_pool: of texts that name none.
        fatal: called when the process is not worth keeping any more.
        clock: seconds; for the rate by which a refused client is told when to come back.
    """

    def __init__(
        self,
        settings: ServeSettings,
        worker: WorkerSettings,
        ask: Asker,
        *,
        pools: UnreadPools = ALL_READ,
        default_pool: str = "",
        fatal: Callable[[BaseException], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._pools = pools
        self._default_pool = default_pool
        self._held: dict[str, list[WaitingText]] = {}
        self._fatal = fatal
        self._clock = clock
        self._at_engine = 0
        self._engine_free = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted: set[WaitingText] = set()
        self._bytes = 0
        self._rate: float | None = None
        self._batcher: Batcher[WaitingText] = Batcher(
            worker.batch_documents,
            worker.batch_seconds,
            lambda: self._at_engine == 0,
            weigh=lambda waiting: len(waiting.text.document.text),
            most=worker.batch_kb << 10,
        )
        self._limit = FailureLimit(run=worker.max_failure_run, share=worker.max_failure_share)
        self.documents = 0
        self.failures = 0

    @property
    def texts(self) -> int:
        """Texts that are accepted and not answered yet."""
        return len(self._accepted)

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[None]:
        """A block in which a body of so many bytes is read, worked on and answered.

        Raises:
            QueueFullError: there are too many bytes already.
        """
        if self._bytes + size > self._settings.max_waiting_mb << 20:
            raise self._full(f"requests of {self._bytes >> 10} kB (serve.max_waiting_mb is the limit)")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def accept(self, texts: Sequence[TextToTag]) -> list[WaitingText]:
        """All of a request's texts, or none.

        Raises:
            QueueFullError: there are too many already.
        """
        if len(self._accepted) + len(texts) > self._settings.max_waiting_texts:
            raise self._full(f"{len(self._accepted)} texts (serve.max_waiting_texts is the limit)")
        waiting = [WaitingText(text) for text in texts]
        self._accepted.update(waiting)
        self._batcher.add(waiting)
        return waiting

    def drop(self, waiting: Sequence[WaitingText]) -> None:
        """Nobody waits for these any more. Those at the engine stay until it has answered."""
        for each in waiting:
            each.answer.cancel()
        dropped = self._batcher.remove(lambda each: each.answer.cancelled())
        for pool, held in self._held.items():
            dropped += [each for each in held if each.answer.cancelled()]
            self._held[pool] = [each for each in held if not each.answer.cancelled()]
        self._accepted.difference_update(dropped)

    async def run(self) -> None:
        """Form batches, until cancelled."""
        while True:
            while self._at_engine >= _MOST_AT_ENGINE:
                self._engine_free.clear()
                await self._engine_free.wait()
            batch = self._set_aside(await self._batcher.take())
            if not batch:
                continue
            self._at_engine += 1
            task = asyncio.create_task(self._answer(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _set_aside(self, batch: Sequence[WaitingText]) -> list[WaitingText]:
        """Those whose pool is read. The others wait for theirs, within what is accepted at all."""
        if not self._pools.unread:
            return list(batch)
        ready = []
        for each in batch:
            pool = each.text.document.pool or self._default_pool
            if pool not in self._pools.unread:
                ready.append(each)
            elif pool in self._held:
                self._held[pool].append(each)
            else:
                self._held[pool] = [each]
                self._await(pool)
        return ready

    def _await(self, pool: str) -> None:
        loop = asyncio.get_running_loop()

        def ended(needed: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._release, pool, needed)

        self._pools.need(pool).add_done_callback(ended)

    def _release(self, pool: str, needed: Future[None]) -> None:
        held = self._held.pop(pool)
        error = None if needed.cancelled() else needed.exception()
        if error is None:
            self._batcher.put_back(held)
            return
        self._give(held, error if isinstance(error, El4nerError) else StoppedError(f"{type(error).__name__}: {error}"))
        self.documents += len(held)
        self._accepted.difference_update(held)

    async def drained(self) -> None:
        """Wait until everything that was accepted is answered."""
        while self._accepted:
            await asyncio.wait([each.answer for each in self._accepted])
            # Those that were cancelled are at the engine still: nobody waits for them.
            if all(each.answer.done() for each in self._accepted):
                return

    def stop(self) -> None:
        """What is not answered is answered by :class:`StoppedError`."""
        for each in self._accepted:
            if not each.answer.done():
                each.answer.set_exception(StoppedError("the service stops, and did not come to this in time"))

    async def _answer(self, batch: Sequence[WaitingText]) -> None:
        began = self._clock()
        try:
            results = await asyncio.wrap_future(self._ask([each.text for each in batch]))
            # A text that cannot be tagged says nothing of the engine.
            codes = [None if (error := result.error) is None else error.code for result in results]
            blamed = [result.by_engine or result.error is None for result in results]
            self._limit.check([code for code, counts in zip(codes, blamed, strict=True) if counts])
        except El4nerError as error:
            self._give(batch, error)
            if error.code == "too-many-failures":
                self._fatal(error)
        except BaseException as error:
            self._give(batch, StoppedError("the service ends after an error"))
            if not isinstance(error, asyncio.CancelledError):
                self._fatal(error)
            raise
        else:
            self._measure(len(batch), self._clock() - began)
            for each, result in zip(batch, results, strict=True):
                self.failures += result.error is not None
                if not each.answer.done():
                    each.answer.set_result(result)
        finally:
            self.documents += len(batch)
            self._accepted.difference_update(batch)
            self._at_engine -= 1
            self._engine_free.set()
            self._batcher.wake()

    def _give(self, batch: Sequence[WaitingText], error: El4nerError) -> None:
        self.failures += len(batch)
        for each in batch:
            if not each.answer.done():
                each.answer.set_exception(error)

    def _measure(self, texts: int, seconds: float) -> None:
        rate = texts / max(seconds, 0.001)
        self._rate = rate if self._rate is None else self._rate + _RECENT * (rate - self._rate)

    def _full(self, what: str) -> QueueFullError:
        seconds = 1 if self._rate is None else math.ceil(len(self._accepted) / self._rate)
        seconds = min(max(seconds, 1), _LONGEST_RETRY_SECONDS)
        return QueueFullError(f"{what} are accepted and not answered yet: send it again in {seconds} s", seconds)
