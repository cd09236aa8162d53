"""The agent of a join: what the aggregator, which joins stages' answers, and the combiner, which joins members', share.

    events ──▶ open documents ──▶ settled documents ──write loop, group after group──▶ Kafka ──▶ finished tickets

Messages about one document wait for each other. What is settled is written, and a message's ticket is finished when
what the message led to is written: what was not comes again. While too much waits to be written, no more is taken in.

What differs is who owns what is open, and how it is written. The aggregator has a write loop for each partition that it
owns, and writes in the partition's transactions. The combiner has one for all, and finishes tickets after delivery.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError
from workers.join.write_loop import WriteLoop
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.messages.headers import RandomBytes
from workers.stages.crash_journal import CrashJournal
from workers.telemetry.recorder import WorkerRecorder
from workers.topics import Topic

__all__ = ["JoinAgent", "World"]

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
_YIELD_EVERY: Final = 50


@dataclass(frozen=True, slots=True)
class World:
    """What a join is given of the world. ``clock_ms``: the wall clock, for what is written. ``monotonic_ms``: a clock
    that never jumps, for deadlines."""

    clock_ms: Callable[[], int]
    monotonic_ms: Callable[[], int]
    random: RandomBytes


class JoinAgent(ABC):
    """A join's agent."""

    batch_seconds: Final = None
    """There is no engine."""
    held: Final = 0
    """It needs no pool."""

    @property
    def stuck_seconds(self) -> float:
        """For how long a partition has had messages to finish, and has not got on."""
        return self.app.positions.stuck_seconds

    def __init__(self, app: StageApp, world: World, recorder: WorkerRecorder, topics: Sequence[Topic]) -> None:
        self.app = app
        self.documents = 0
        """Documents that were written."""
        self.failures = 0
        """Those that failed."""
        self._settings = app.settings
        self._recorder = recorder
        self._world = world
        self._journal = CrashJournal(app.settings.worker.data_dir, app.stage)
        app.agent(app.raw_topic(*topics), name=f"el4ner-{app.stage}", concurrency=1)(self.run)
        app.task(self._tick)
        app.prepare = self.take_over

    # --- what differs ---

    @abstractmethod
    def _write_loops(self) -> Iterable[WriteLoop]:
        """Those of all partitions."""

    @abstractmethod
    def _write_loop_of(self, record: Record) -> WriteLoop | None:
        """The one that writes what the message leads to; None: its partition was taken away, so it comes again."""

    @abstractmethod
    def _take_in(self, record: Record, ticket: Ticket) -> Iterable[Ticket]:
        """Take a message in. Returns the tickets of messages that lead to nothing more, this one perhaps among them.

        Raises:
            MessageError: the message cannot be read.
        """

    @abstractmethod
    def _refuse(self, record: Record, ticket: Ticket, error: MessageError) -> None:
        """Take in a message that cannot be read."""

    @abstractmethod
    def _settle_due(self, *, now: int) -> None:
        """Settle the documents whose time has come."""

    @abstractmethod
    def _limit_open_documents(self) -> None:
        """See whether too many documents are open."""

    # --- what is shared ---

    async def run(self, stream: Any) -> None:
        """Take in what the topics bring."""
        try:
            async for event in stream.noack().events():
                for count, (record, ticket) in enumerate(self.app.take(event), 1):
                    writes = self._write_loop_of(record)
                    if writes is None:
                        break
                    self._handle(record, ticket)
                    writes.wake()
                    if count % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                    await writes.room()
                self._limit_open_documents()
        except Exception as error:
            self.app.fail(error)
            raise

    def _handle(self, record: Record, ticket: Ticket) -> None:
        try:
            free = self._take_in(record, ticket)
        except MessageError as error:
            self._refuse(record, ticket, error)
        else:
            for each in free:
                self.app.positions.finish(each)

    async def _tick(self) -> None:
        while not self.app.should_stop:
            await asyncio.sleep(TICK_SECONDS)
            self._settle_due(now=self._world.monotonic_ms())
            for writes in self._write_loops():
                writes.wake()
            self._limit_open_documents()

    async def _write(self, writes: WriteLoop) -> None:
        try:
            await writes.run()
        except Exception as error:
            self.app.fail(error)
            raise

    async def take_over(self) -> None:
        """Partitions were assigned. Nothing is read of them before this returns."""
        self._recorder.assigned()
        await asyncio.to_thread(self._journal.take_over)

    async def drain(self) -> None:
        """Write what is settled, within ``worker.shutdown_seconds``. What is not comes again, here or elsewhere."""
        until = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        for writes in self._write_loops():
            if not await writes.drain(until):
                log.warning("what is settled is left to the next owner", extra={"stage": self.app.stage})
                break

    async def release(self) -> None:
        """Stop for good. The journal stays if this process ends because of a message."""
        self._journal.close()
