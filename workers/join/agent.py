"""The agent of a join: what the aggregator, which joins stages' answers, and the combiner, which joins members', share.

    events ──▶ backlog: open documents ──▶ settled ones ──write loop, group after group──▶ Kafka ──▶ finished tickets

Messages about one document wait for each other in a *backlog*. The backlog's loop writes what is settled. A message's
ticket is finished when what the message led to is written; what was not written comes again. While too much that is
settled waits to be written, no more messages are taken in.

The two agents differ in who owns a backlog and how its groups are written. The aggregator has a backlog for each
partition that it owns, and writes in the partition's transactions (:mod:`workers.join.outcome_writer`). The combiner
has one for all its partitions, and finishes tickets after delivery (:mod:`workers.ensemble.answer_writer`).
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from el4ner.errors import MessageError
from workers.join.write_loop import WriteLoop
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.stages.crash_journal import CrashJournal
from workers.telemetry.recorder import WorkerRecorder
from workers.topics import Topic

__all__ = ["Backlog", "GroupWriter", "JoinAgent"]

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
_YIELD_EVERY: Final = 50
_MOST_SETTLED: Final = 1_000


class _Join(Protocol):
    """The documents that are open, settled or remembered; what is a method of both joins."""

    @property
    def has_work(self) -> bool:
        """Whether there is something to write."""

    @property
    def settled_documents(self) -> int:
        """Documents that wait to be written."""

    def tick(self, *, now: int) -> None:
        """Settle what is due."""


J = TypeVar("J", bound=_Join)
L = TypeVar("L")


class Backlog(Generic[J, L]):
    """What one write loop writes: what the join has settled, and ``letters``, about messages that cannot be read.

    Args:
        write_group: writes the next group of it.
    """

    def __init__(self, join: J, write_group: Callable[[Self], Awaitable[None]]) -> None:
        self.join = join
        self.letters: list[L] = []
        self.writes = WriteLoop(lambda: self.has_work, lambda: write_group(self))

    @property
    def has_work(self) -> bool:
        """Whether there is something to write."""
        return self.join.has_work or bool(self.letters)

    def is_full(self) -> bool:
        """Whether so much waits to be written that no more should be taken in."""
        return self.join.settled_documents >= _MOST_SETTLED


B = TypeVar("B", bound=Backlog[Any, Any])


class GroupWriter(Protocol):
    """Writes a backlog's groups."""

    @property
    def documents(self) -> int:
        """How many documents were written."""

    @property
    def failures(self) -> int:
        """How many of them have failed."""

    @property
    def journal(self) -> CrashJournal:
        """What this process is blamed for, and what those that died have left."""


class JoinAgent(ABC, Generic[B]):
    """A join's agent.

    Args:
        monotonic_ms: a clock that never jumps, for deadlines.
    """

    batch_seconds: Final = None
    """There is no engine."""

    def __init__(
        self,
        app: StageApp,
        topics: Sequence[Topic],
        writer: GroupWriter,
        telemetry: WorkerRecorder,
        *,
        monotonic_ms: Callable[[], int],
    ) -> None:
        self.app = app
        self._settings = app.settings
        self._writer = writer
        self._telemetry = telemetry
        self._monotonic_ms = monotonic_ms
        app.agent(app.raw_topic(*topics), name=f"el4ner-{app.stage}", concurrency=1)(self.run)
        app.task(self._tick)
        app.prepare = self.take_over

    @property
    def documents(self) -> int:
        """How many documents were written."""
        return self._writer.documents

    @property
    def failures(self) -> int:
        """How many of them have failed."""
        return self._writer.failures

    # --- what differs ---

    @abstractmethod
    def _backlogs(self) -> Collection[B]:
        """All that there are."""

    @abstractmethod
    def _backlog_of(self, record: Record) -> B | None:
        """Where the message belongs; None: its partition was taken away, and the message comes again."""

    @abstractmethod
    def _join_in(self, backlog: B, record: Record, ticket: Ticket) -> Iterable[Ticket]:
        """Take a message in. Returns the tickets of messages that lead to nothing more, this one perhaps among them.

        Raises:
            MessageError: the message cannot be read.
        """

    @abstractmethod
    def _refuse(self, backlog: B, record: Record, ticket: Ticket, error: MessageError) -> None:
        """Take in a message that cannot be read."""

    @abstractmethod
    def _limit_open_documents(self) -> None:
        """See whether too many documents are open; called after each event and each tick."""

    # --- what comes in ---

    async def run(self, stream: Any) -> None:
        """Take in what the topics bring."""
        try:
            async for event in stream.noack().events():
                for count, (record, ticket) in enumerate(self.app.take(event), 1):
                    backlog = self._backlog_of(record)
                    if backlog is None:
                        break
                    self._handle(backlog, record, ticket)
                    if count % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                    await backlog.writes.room(backlog.is_full)
                self._limit_open_documents()
        except Exception as error:
            # Faust would restart the agent and leave the events that it held behind.
            self.app.fail(error)
            raise

    def _handle(self, backlog: B, record: Record, ticket: Ticket) -> None:
        """Take one message in. Its ticket is finished when what it led to is written."""
        try:
            free = self._join_in(backlog, record, ticket)
        except MessageError as error:
            self._refuse(backlog, record, ticket, error)
        else:
            for freed in free:
                self.app.positions.finish(freed)
        backlog.writes.wake()

    async def _tick(self) -> None:
        while not self.app.should_stop:
            await asyncio.sleep(TICK_SECONDS)
            for backlog in list(self._backlogs()):
                backlog.join.tick(now=self._monotonic_ms())
                backlog.writes.wake()
            self._limit_open_documents()

    # --- what goes out ---

    async def _write(self, backlog: B) -> None:
        """Run a backlog's write loop. The process ends if a group cannot be written."""
        try:
            await backlog.writes.run()
        except Exception as error:
            self.app.fail(error)
            raise

    # --- partitions come and go ---

    async def take_over(self) -> None:
        """Partitions were assigned; nothing is read of them before this returns."""
        self._telemetry.assigned()
        await asyncio.to_thread(self._writer.journal.take_over)

    async def drain(self) -> None:
        """Write what is settled, within ``worker.shutdown_seconds``. What is not comes again, here or elsewhere."""
        until = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        for backlog in self._backlogs():
            if not await backlog.writes.drain(until):
                log.warning("what is settled is left to the next owner", extra={"stage": self.app.stage})
                break

    async def release(self) -> None:
        """Stop for good."""
        self._writer.journal.close()
