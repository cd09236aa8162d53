"""Messages that wait for their pool to be read, while others are worked on. Pure: no I/O.

A message overtakes none about its own document, and none of its partition by more than so many offsets: what comes out
before an older message has to be remembered until that one is finished, or it would come twice after a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from workers.kafka.offsets import Partition
from workers.messages.envelope import Record

__all__ = ["HeldMessage", "HeldMessages", "MessageNeeds"]


class MessageNeeds(NamedTuple):
    """What a message is about: a document, and the pool that its work needs. None: nobody's; it needs none."""

    document: str | None
    pool: str | None


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """One that waits."""

    record: Record
    generation: int
    needs: MessageNeeds

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return 1_000 + len(self.record.value or b"") + len(self.record.key or b"")


class HeldMessages:
    """In the order in which they came.

    Args:
        most: messages.
        most_bytes: of their values.
        ahead: how far others may come out ahead of the oldest one of their partition, in offsets.
    """

    def __init__(self, *, most: int, most_bytes: int, ahead: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._ahead = ahead
        self._messages: list[HeldMessage] = []
        # The lowest offset that waits.
        self._documents: dict[tuple[Partition, str], int] = {}
        self._partitions: dict[Partition, int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_full(self) -> bool:
        """Whether no more may be held."""
        return len(self._messages) >= self._most or self._bytes >= self._most_bytes

    def must_wait(self, record: Record, needs: MessageNeeds, unread: Callable[[str], bool]) -> bool:
        """Whether its pool is unread, or it would overtake what it must not. What lies behind it may wait still: a
        message that was released is asked about again."""
        if needs.pool is not None and unread(needs.pool):
            return True
        partition = (record.source, record.partition)
        if needs.document is not None:
            before = self._documents.get((partition, needs.document))
            if before is not None and before < record.offset:
                return True
        oldest = self._partitions.get(partition)
        return oldest is not None and record.offset - oldest > self._ahead

    def hold(self, record: Record, generation: int, needs: MessageNeeds) -> None:
        """It waits."""
        self._add(HeldMessage(record, generation, needs))

    def release(self, unread: Callable[[str], bool]) -> list[HeldMessage]:
        """Those that need not wait any more."""
        messages = self._messages
        self.clear()
        released = []
        for message in messages:
            if self.must_wait(message.record, message.needs, unread):
                self._add(message)
            else:
                released.append(message)
        return released

    def clear(self) -> None:
        """Partitions were assigned: what waited comes again, here or elsewhere."""
        self._messages = []
        self._documents.clear()
        self._partitions.clear()
        self._bytes = 0

    def _add(self, message: HeldMessage) -> None:
        partition, offset = (message.record.source, message.record.partition), message.record.offset
        self._messages.append(message)
        self._bytes += message.size
        self._partitions[partition] = min(offset, self._partitions.get(partition, offset))
        if message.needs.document is not None:
            document = (partition, message.needs.document)
            self._documents[document] = min(offset, self._documents.get(document, offset))
