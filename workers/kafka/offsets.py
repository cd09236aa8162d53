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
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["OffsetTracker", "Ticket"]

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
class _Line:
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
        self._lines: dict[Partition, _Line] = {}

    @property
    def is_open(self) -> bool:
        """Whether messages that are read now will be handed out."""
        return self._generation is not None and not self._paused

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
        self._lines.clear()
        self._generation = None

    def read(self, partition: Partition, offset: int, generation: int) -> None:
        """A message was read from Kafka. In the order of the offsets, which may have gaps."""
        if self._generation is None or generation != self._generation:
            return
        line = self._lines.get(partition)
        if line is None or offset <= line.last:
            # Going back to an offset that was read before: what is read again is what counts.
            line = self._lines[partition] = _Line(self._clock())
        if not line.tickets:
            line.moved = self._clock()
        ticket = Ticket(partition, offset, self._epoch)
        line.last = offset
        line.tickets.append(ticket)
        line.waiting[offset] = ticket

    def moved(self, partition: Partition, begin: int, end: int, generation: int) -> None:
        """A fetch went from offset ``begin`` up to ``end`` (not included), after :meth:`read` of each of its messages.

        Offsets in between that were not read hold no message: marks of transactions, what was aborted, what compaction
        removed. When all messages before ``end`` are finished, ``end`` may be committed: otherwise a partition whose
        last offset is such a mark would look as if it were behind for ever.
        """
        if self._generation is None or generation != self._generation:
            return
        line = self._lines.get(partition)
        if line is None:
            line = self._lines[partition] = _Line(self._clock(), last=begin - 1)
        if line.end is not None and line.end != begin:
            # The fetches do not meet: what lies between them is not known.
            return
        line.end = end
        if end > begin and not line.tickets:
            self._advance(line, end)

    def _advance(self, line: _Line, offset: int) -> None:
        if line.next is None or offset > line.next:
            line.next = offset
            line.moved = self._clock()

    def take(self, partition: Partition, offset: int, generation: int) -> Ticket | None:
        """The ticket of a message about to be worked on, or None: do not work on it. One message, one ticket."""
        if not self.is_open or generation != self._generation:
            return None
        line = self._lines.get(partition)
        ticket = None if line is None else line.waiting.pop(offset, None)
        if ticket is not None:
            ticket.taken = True
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """All that came of the message is delivered. In any order; a second time does nothing."""
        ticket.finished = True
        if ticket.epoch != self._epoch:
            return
        line = self._lines.get(ticket.partition)
        if line is None:
            return
        while line.tickets and line.tickets[0].finished:
            line.next = line.tickets.popleft().offset + 1
            line.moved = self._clock()
        if line.next is not None and line.end is not None and not line.tickets:
            self._advance(line, line.end)

    def committable(self) -> dict[Partition, int]:
        """Per partition the offset of the first message that is not finished; only where something is."""
        return {partition: line.next for partition, line in self._lines.items() if line.next is not None}

    def unfinished(self) -> dict[Partition, int]:
        """Per partition that was read, the offset of the first message that is not finished; where all are, the end of
        what was read."""
        return {
            partition: line.tickets[0].offset if line.tickets else max(line.last + 1, line.end or 0)
            for partition, line in self._lines.items()
        }

    @property
    def in_flight(self) -> int:
        """Messages that were taken in this epoch and are not finished."""
        return sum(
            1 for line in self._lines.values() for ticket in line.tickets if ticket.taken and not ticket.finished
        )

    @property
    def stuck_seconds(self) -> float:
        """For how long the partition that is stuck longest has had messages to finish, and has not got on."""
        moved = [line.moved for line in self._lines.values() if line.tickets]
        return self._clock() - min(moved) if moved else 0.0
