"""What workers that ask the pipeline share: batches from messages, the engine on its own thread, a bounded end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.stages.batching import Batcher
from workers.stages.document_schemas import DocumentSchemas
from workers.stages.engine_calls import EngineHungError, Owner
from workers.stages.held_messages import HeldMessages, MessageNeeds
from workers.stages.stage import Deleted, Failure, Work
from workers.stages.unread_pools import ALL_READ, UnreadPools
from workers.topics import Topic

__all__ = ["BatchWorker", "Received"]

_MOST_AT_ENGINE: Final = 2
"""One batch at work and one that waits for the engine: a third one would only wait longer."""
_WATCH_SECONDS: Final = 0.5

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Received:
    """A message with the generation that it was read in. It gets a ticket when it is worked on: until then the
    partition may be taken away. ``read``: what a worker has read in it already, if any has."""

    record: Record
    generation: int
    read: Any = None


class BatchWorker(ABC):
    """An agent that works on batches of one topic's messages. The pipeline is called on ``owner``'s thread only.

    Args:
        app: of the stage.
        topic: what is read.
        owner: of the pipeline.
        pools: those that have yet to be read. Messages of these are held until theirs is.
        ahead: how far others may come out ahead of one that is held, in offsets of their partition.
    """

    def __init__(
        self,
        app: StageApp,
        topic: Topic,
        owner: Owner,
        pools: UnreadPools = ALL_READ,
        *,
        ahead: int,
    ) -> None:
        worker = app.settings.worker
        self.app = app
        self.documents = 0
        self.failures = 0
        self._settings = app.settings
        self._owner = owner
        self._slots = asyncio.Semaphore(worker.batches_in_flight)
        self._at_engine = 0
        self._engine_free = asyncio.Event()
        self._stopping = threading.Event()
        self._crashed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._pools = pools
        self._held = HeldMessages(
            most=worker.max_held_documents,
            most_bytes=worker.max_held_mb << 20,
            ahead=ahead,
        )
        self._awaited: set[str] = set()
        self._blocked = False
        self._released = asyncio.Event()
        self._batcher: Batcher[Received] = Batcher(
            worker.batch_documents,
            worker.batch_seconds,
            lambda: self._at_engine == 0,
            weigh=lambda item: len(item.record.value or b""),
            most=worker.batch_kb << 10,
        )
        # Concurrency above 1 can commit over a message in flight (#606); batches are the concurrency here.
        self._schemas = DocumentSchemas.of(app.settings.kafka, app.backoff) if topic is Topic.DOCUMENTS else None
        app.agent(app.raw_topic(topic), name=f"el4ner-{app.stage}", concurrency=1)(self.run)
        app.task(self._form_batches)
        app.task(self._watch)
        app.prepare = self._take_over

    @property
    def held(self) -> int:
        """Messages that wait for their pool to be read."""
        return len(self._held)

    @property
    def batch_seconds(self) -> float | None:
        """For how long the engine has worked on the current part of a call, or read the current part of a pool; None:
        it is idle."""
        seconds = (self._call_seconds, self._pools.slice_seconds)
        return max((each for each in seconds if each is not None), default=None)

    @property
    def stuck_seconds(self) -> float:
        """For how long a partition has had messages and has not got on. One whose messages wait for a pool gets on with
        it."""
        stuck = self.app.positions.stuck_seconds
        return min(stuck, self._pools.idle_seconds) if self._held else stuck

    async def _take_over(self) -> None:
        self._held.clear()
        self._blocked = False
        self._released.set()
        await self.take_over()

    # --- what differs ---

    @property
    @abstractmethod
    def _call_seconds(self) -> float | None:
        """For how long the engine has worked on the current part of a call; None: it is idle."""

    @abstractmethod
    async def take_over(self) -> None:
        """Partitions were assigned. Nothing is read of them before this returns."""

    @abstractmethod
    def _read(self, record: Record) -> Work[Any] | Failure | Deleted | None:
        """What is to be done about a message; None: nothing."""

    @abstractmethod
    async def _work(self, taken: Sequence[tuple[Received, Ticket]]) -> None:
        """Work on a batch."""

    @abstractmethod
    async def _let_go(self) -> None:
        """Let go of what is held beside the app. After a crash the journals stay."""

    # --- from messages to batches ---

    async def run(self, stream: Any) -> None:
        """Take in what the topic brings."""
        try:
            async for event in stream.noack().events():
                generation = event.message.generation_id
                records = self.app.records(event.message.value)
                if self._schemas is not None:
                    records = iter(await self._schemas.named_by(records))
                await self._receive(records, generation)
        except Exception as error:
            # Faust would restart the agent and leave the events that it held behind.
            self._crashed = True
            self.app.fail(error)
            raise

    async def _receive(self, records: Iterable[Record], generation: int) -> None:
        """Take in what a fetch brought; returns when there is room for more."""
        await self._batcher.put(Received(record, generation) for record in records)

    async def _form_batches(self) -> None:
        try:
            await self._batches()
        except Exception as error:
            self._crashed = True
            self.app.fail(error)
            raise

    async def _batches(self) -> None:
        while not self.app.should_stop:
            await self._slots.acquire()
            while self._at_engine >= _MOST_AT_ENGINE:
                self._engine_free.clear()
                await self._engine_free.wait()
            batch = []
            for received in await self._take():
                ticket = self.app.ticket(received.record, received.generation)
                if ticket is not None:
                    batch.append((received, ticket))
            task = asyncio.create_task(self._work(batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            # So that the engine counts as busy before the next batch is formed.
            await asyncio.sleep(0)

    # --- messages that wait for their pool ---

    async def _take(self) -> list[Received]:
        """The next messages to be worked on."""
        while True:
            if self._blocked:
                self._released.clear()
                await self._released.wait()
            ready = self._set_aside(await self._batcher.take())
            if ready:
                return ready

    def _set_aside(self, batch: Sequence[Received]) -> list[Received]:
        """Those of a batch that need not wait for a pool, or for a message that does."""
        if not self._pools.unread and not self._held:
            return list(batch)
        ready = []
        for place, received in enumerate(batch):
            if not self.app.positions.gives(received.generation):
                continue  # it comes again, here or elsewhere: held, it would be in the way of what comes
            record = received.record
            if received.read is None:
                received = replace(received, read=self._read(record))
            needs = self._needs(received.read)
            if not self._held.must_wait(record, needs, self._is_unread):
                ready.append(received)
            elif self._held.is_full:
                # All that comes behind it waits too, in its order.
                self._batcher.put_back(batch[place:])
                self._blocked = True
                break
            else:
                # Read again when it is its turn: what was read takes several times the message's room.
                self._held.hold(record, received.generation, needs)
                self._await(needs.pool)
        return ready

    def _needs(self, read: Work[Any] | Failure | Deleted | None) -> MessageNeeds:
        if read is None:
            return MessageNeeds(None, None)
        if isinstance(read, Work):
            return MessageNeeds(read.document.id, read.document.pool or self._settings.pools.default)
        return MessageNeeds(read.document, None)

    def _is_unread(self, pool: str) -> bool:
        return pool in self._pools.unread

    def _await(self, pool: str | None) -> None:
        if pool is None or pool in self._awaited or not self._is_unread(pool):
            return
        self._awaited.add(pool)
        loop = asyncio.get_running_loop()

        def ended(needed: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._release, pool, needed)

        self._pools.need(pool).add_done_callback(ended)

    def _release(self, pool: str, needed: Future[None]) -> None:
        self._awaited.discard(pool)
        if needed.cancelled():
            return
        if (error := needed.exception()) is not None:
            self._crashed = True
            self.app.fail(error)
            return
        released = [Received(each.record, each.generation) for each in self._held.release(self._is_unread)]
        # Among what waits may be what was released before, of which these are behind some.
        waiting = self._batcher.remove(lambda _: True)
        self._batcher.put_back(sorted([*released, *waiting], key=lambda received: received.record.offset))
        self._blocked = False
        self._released.set()

    # --- the engine ---

    async def _asked(self, function: Callable[..., R], *args: Any) -> R:
        """``function(pipeline, *args)``, on the owner's thread."""
        self._at_engine += 1
        try:
            # There is room: no more batches are at the engine than its queue takes.
            answer: R = await asyncio.wrap_future(self._owner.submit_within(0, function, *args))
            return answer
        finally:
            self._at_engine -= 1
            self._engine_free.set()
            self._batcher.wake()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed = True
            self.app.fail(error)

    async def drain(self) -> None:
        """Wait, within ``worker.shutdown_seconds``, until what was begun is finished."""
        end = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        while self._tasks and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)

    async def release(self) -> None:
        """Stop for good: nothing is tried again."""
        self._stopping.set()
        await self._let_go()
        if self._schemas is not None:
            self._schemas.close()

    async def _watch(self) -> None:
        """End the worker when an engine hangs."""
        deadline = self._settings.worker.batch_deadline_seconds
        while not self.app.should_stop:
            await asyncio.sleep(_WATCH_SECONDS)
            seconds = self.batch_seconds
            if seconds is not None and seconds > deadline:
                self.app.fail(EngineHungError(f"{self.app.stage}: an engine has not answered for {seconds:.0f} s"))
                return
