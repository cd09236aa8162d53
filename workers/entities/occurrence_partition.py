"""tagged-documents → entity-occurrences: a partition, with its offset in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from workers.entities.occurrences import OccurrenceMessages, OccurrenceTeller
from workers.join.answered_partition import AnsweredPartition
from workers.kafka.offsets import Ticket
from workers.messages.envelope import Record

__all__ = ["OccurrencePartition", "TakenRecord"]

TakenRecord = tuple[Record, Ticket]
_AT_ONCE: Final = 100
"""Documents of one transaction at most."""


@dataclass(eq=False)
class OccurrencePartition:
    """A partition of tagged documents."""

    answered: AnsweredPartition[OccurrenceMessages]
    teller: OccurrenceTeller
    clock_ms: Callable[[], int]

    async def work(self, taken: Sequence[TakenRecord]) -> None:
        """Answer messages, in their order."""
        for first in range(0, len(taken), _AT_ONCE):
            group = taken[first : first + _AT_ONCE]
            began = self.clock_ms()
            told = await asyncio.to_thread(self._told, [record for record, _ in group])
            await self.answered.write(told, [ticket for _, ticket in group], began)

    async def look(self) -> None:
        """Commit what lies behind the last message."""
        await self.answered.look()

    async def stop(self) -> None:
        """Let go of it."""
        await self.answered.stop()

    def _told(self, records: Sequence[Record]) -> list[OccurrenceMessages]:
        return [self.teller.tell(record) for record in records]
