"""Which offsets may be committed: everything before the oldest message that is not finished.

Faust has such bookkeeping too, but it cannot carry a guarantee (faust-streaming 0.15.3): it acknowledges messages that
a rebalance made it *skip*, its test for a gap is off by one and absent before the first commit (so an acknowledgement
out of order commits over a message in flight, issue #606), and ``take`` acknowledges in a ``finally``. So Faust's
acknowledgements count for nothing here (:mod:`workers.kafka.transport`), and this does.

Every message is noted when it is *read* from Kafka, not when it reaches a worker. A message that got lost in between,
in some queue, stays unfinished and holds the commit back. That shows (:attr:`OffsetTracker.stuck_seconds`), and a
restart heals it. A commit past it would lose the message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

__all__ = ["OffsetTracker", "Partition", "Ticket"]

Partition = tuple[str, int]


@dataclass(eq=False, slots=True)
class Ticket:
    """One message that was read and has to be finished."""

    partition: Partition
    offset: int
    epoch: int
    taken: bool = False
    finished: bool = False


@dataclass(slots=True)
class _PartitionProgress:
    """The unfinished messages of a partition and those behind them, oldest first.

    ``next``: the offset after the last finished one that has none unfinished before it. ``moved``: when that changed.
    ``end``: up to where reading has come; what lies before it and was not read is no message. None: not known.
    """

    moved: float
    tickets: deque[Ticket] = field(default_factory=deque)
    waiting: dict[int, Ticket] = field(default_factory=dict)
    last: int = -1
    next: int | None = None
    end: int | None = None


class OffsetTracker:
    """Tickets for messages in flight, per partition. Not thread-safe: one event loop.

    An *epoch* lasts from one assignment of partitions to the next. Outside of one (between :meth:`close` and
    :meth:`open`), and for a message of another generation, :meth:`take` gives no ticket: the message will come again,
    here or elsewhere. A ticket that outlives its epoch finishes nothing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch = 0
        self._generation: int | None = None
        self._paused = False
        self._progress: dict[Partition, _PartitionProgress] = {}

    @property
    def is_open(self) -> bool:
        """Whether messages that are read now will be handed out."""
        return self._generation is not None and not self._paused

    def gives(self, generation: int) -> bool:
        """Whether messages that were read in that generation get tickets. Those of another one come again."""
        return self.is_open and generation == self._generation

    def open(self, generation: int) -> None:
        """Partitions were assigned in ``generation`` of the consumer group; reading begins where was committed."""
        self.close()
        self._generation = generation
        self._paused = False

    def pause(self) -> None:
        """Give no more tickets in this epoch; those that are out still count."""
        self._paused = True

    def close(self) -> None:
        """Partitions were taken away, or may be at any moment."""
        self._epoch += 1
        self._progress.clear()
        self._generation = None

    def read(self, partition: Partition, offset: int, generation: int) -> None:
        """A message was read from Kafka. In the order of the offsets, which may have gaps."""
        if self._generation is None or generation != self._generation:
            return
        progress = self._progress.get(partition)
        if progress is None or offset <= progress.last:
            # Going back to an offset that was read before: what is read again is what counts.
            progress = self._progress[partition] = _PartitionProgress(self._clock())
        if not progress.tickets:
            progress.moved = self._clock()
        ticket = Ticket(partition, offset, self._epoch)
        progress.last = offset
        progress.tickets.append(ticket)
        progress.waiting[offset] = ticket

    def moved(self, partition: Partition, begin: int, end: int, generation: int) -> None:
        """A fetch went from offset ``begin`` up to ``end`` (not included), after :meth:`read` of each of its messages.

        Offsets in between that were not read hold no message: marks of transactions, what was aborted, what compaction
        removed. When all messages before ``end`` are finished, ``end`` may be committed: otherwise a partition whose
        last offset is such a mark would look as if it were behind for ever.
        """
        if self._generation is None or generation != self._generation:
            return
        progress = self._progress.get(partition)
        if progress is None:
            progress = self._progress[partition] = _PartitionProgress(self._clock(), last=begin - 1)
        if progress.end is not None and progress.end != begin:
            # The fetches do not meet: what lies between them is not known.
            return
        progress.end = end
        if end > begin and not progress.tickets:
            self._advance(progress, end)

    def _advance(self, progress: _PartitionProgress, offset: int) -> None:
        if progress.next is None or offset > progress.next:
            progress.next = offset
            progress.moved = self._clock()

    def take(self, partition: Partition, offset: int, generation: int) -> Ticket | None:
        """The ticket of a message about to be worked on, or None: do not work on it. One message, one ticket."""
        if not self.gives(generation):
            return None
        progress = self._progress.get(partition)
        ticket = None if progress is None else progress.waiting.pop(offset, None)
        if ticket is not None:
            ticket.taken = True
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """All that came of the message is delivered. In any order; a second time does nothing."""
        ticket.finished = True
        if not self.is_current(ticket):
            return
        progress = self._progress.get(ticket.partition)
        if progress is None:
            return
        while progress.tickets and progress.tickets[0].finished:
            progress.next = progress.tickets.popleft().offset + 1
            progress.moved = self._clock()
        if progress.next is not None and progress.end is not None and not progress.tickets:
            self._advance(progress, progress.end)

    def is_current(self, ticket: Ticket) -> bool:
        """Whether it is of this epoch. The message of another one comes again, here or elsewhere."""
        return ticket.epoch == self._epoch

    def committable(self) -> dict[Partition, int]:
        """Per partition the offset of the first message that is not finished; only where something is."""
        return {partition: progress.next for partition, progress in self._progress.items() if progress.next is not None}

    def committable_with(self, partition: Partition, tickets: Collection[Ticket]) -> int | None:
        """What :meth:`committable` would say of a partition if these tickets were finished too; None: nothing."""
        progress = self._progress.get(partition)
        if progress is None:
            return None
        offset, finishing = progress.next, frozenset(tickets)
        for ticket in progress.tickets:
            if not ticket.finished and ticket not in finishing:
                return offset
            offset = ticket.offset + 1
        # Marks of transactions and what was aborted may lie behind the last message.
        return offset if offset is None or progress.end is None else max(offset, progress.end)

    def unfinished(self) -> dict[Partition, int]:
        """Per partition that was read, the offset of the first message that is not finished; where all are, the end of
        what was read."""
        return {
            partition: progress.tickets[0].offset if progress.tickets else max(progress.last + 1, progress.end or 0)
            for partition, progress in self._progress.items()
        }

    def oldest(self, partition: Partition) -> int | None:
        """The offset of the first message that is not finished; None: all that were read are."""
        progress = self._progress.get(partition)
        return progress.tickets[0].offset if progress is not None and progress.tickets else None

    @property
    def in_flight(self) -> int:
        """Messages that were taken in this epoch and are not finished."""
        return sum(
            1
            for progress in self._progress.values()
            for ticket in progress.tickets
            if ticket.taken and not ticket.finished
        )

    @property
    def stuck_seconds(self) -> float:
        """For how long the partition that is stuck longest has had messages to finish, and has not got on."""
        moved = [progress.moved for progress in self._progress.values() if progress.tickets]
        return self._clock() - min(moved) if moved else 0.0
