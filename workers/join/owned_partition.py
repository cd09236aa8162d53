"""A partition that this process owns: its join, its one writer, and what else goes into its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Self

from workers.join.partition_join import PartitionJoin
from workers.join.write_loop import MOST_SETTLED, WriteLoop
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.stage_app import StageApp
from workers.kafka.transactions import ConsumedOffset, TransactionalWriter
from workers.messages.envelope import Outgoing
from workers.topics import Topic, app_id

__all__ = ["ConsumedPartition", "OwnedPartition", "PendingLetter", "TakenMessage"]


@dataclass(frozen=True, slots=True)
class PendingLetter:
    """A dead letter that is to be written: which stage gave up, and the error's code."""

    message: Outgoing
    stage: str
    code: str


@dataclass(eq=False, slots=True)
class TakenMessage:
    """A message that was taken in. The transaction of what it leads to finishes its ticket.

    ``letters`` go into that transaction, and so does what is ``published`` beside the outcome, unless it is refused.
    """

    ticket: Ticket
    letters: Sequence[PendingLetter] = ()
    published: Sequence[Outgoing] = ()

    @property
    def leads_to_more(self) -> bool:
        """Whether anything has to be written of it beside the document's outcome."""
        return bool(self.letters or self.published)


class ConsumedPartition:
    """How far a consumer group has come in a partition, where that is committed in the transactions of its outcomes."""

    def __init__(self, positions: OffsetTracker, *, group: str, topic: str, partition: int) -> None:
        self._positions = positions
        self._group = group
        self._topic = topic
        self._partition = partition
        self._committed = -1

    @classmethod
    def of(cls, app: StageApp, topic: Topic, partition: int) -> Self:
        """Of the group of ``app``."""
        group = app_id(app.settings.kafka, app.group)
        return cls(app.positions, group=group, topic=app.names[topic], partition=partition)

    def offset(self, tickets: Collection[Ticket] = ()) -> ConsumedOffset | None:
        """What is to be committed when these are finished too; None: no more than what is committed."""
        offset = self._positions.committable_with((self._topic, self._partition), tickets)
        if offset is None or offset <= self._committed:
            return None
        return ConsumedOffset(self._group, self._topic, self._partition, offset)

    @property
    def committed_offset(self) -> int:
        """The last one that was committed here; -1: none was yet."""
        return self._committed

    def committed(self, consumed: ConsumedOffset) -> None:
        """It is."""
        self._committed = consumed.offset


class OwnedPartition:
    """A partition that this process owns. ``task`` runs ``writes``, which calls ``write_group(self)``.

    ``consumed``: of the topic whose offsets are committed in our transactions; None: there is none.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        partition: int,
        writer: TransactionalWriter,
        join: PartitionJoin[TakenMessage],
        write_group: Callable[[OwnedPartition], Awaitable[None]],
        consumed: ConsumedPartition | None = None,
    ) -> None:
        self.partition = partition
        self.writer = writer
        self.join = join
        self.consumed = consumed
        self.loose: list[TakenMessage] = []
        """Messages that lead to no outcome, and to something else that has to be written."""
        self.offset_is_due = False
        self.writes = WriteLoop(
            lambda: self.has_work, lambda: write_group(self), lambda: join.settled_documents >= MOST_SETTLED
        )

    @property
    def has_work(self) -> bool:
        """Whether there is something to write."""
        return self.join.has_work or bool(self.loose) or self.offset_is_due

    def look_at_offset(self) -> None:
        """See whether we have come further than what is committed: some messages lead to nothing."""
        self.offset_is_due = self.consumed is not None and self.consumed.offset() is not None
