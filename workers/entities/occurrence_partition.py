"""tagged-documents → entity-occurrences: a partition, by its one writer, with its offset in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from workers.entities.occurrences import OccurrenceMessages, OccurrenceTeller
from workers.join.owned_partition import ConsumedPartition
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.transactions import TransactionalWriter
from workers.messages.envelope import Record
from workers.stages.failure_limit import FailureLimit

__all__ = ["OccurrencePartition", "TakenRecord"]

TakenRecord = tuple[Record, Ticket]
_AT_ONCE: Final = 100
"""Documents of one transaction at most."""


@dataclass(eq=False)
class OccurrencePartition:
    """A partition of tagged documents. ``told`` is called about each that is answered, with when work on it began."""

    writer: TransactionalWriter
    consumed: ConsumedPartition
    positions: OffsetTracker
    teller: OccurrenceTeller
    limit: FailureLimit
    clock_ms: Callable[[], int]
    told: Callable[[OccurrenceMessages, int], None]

    async def work(self, taken: Sequence[TakenRecord]) -> None:
        """Answer messages, in their order."""
        for first in range(0, len(taken), _AT_ONCE):
            group = taken[first : first + _AT_ONCE]
            began = self.clock_ms()
            answers = await asyncio.to_thread(self._answers, [record for record, _ in group])
            self.limit.check([None if each.error is None else each.error.code for each in answers])
            await self._write(answers, [ticket for _, ticket in group], began)

    async def look(self) -> None:
        """Commit what lies behind the last message: marks of transactions, and what was aborted."""
        if self.consumed.offset() is not None:
            await self._write([], [], 0)

    async def stop(self) -> None:
        """Let go of it."""
        await self.writer.stop()

    def _answers(self, records: Sequence[Record]) -> list[OccurrenceMessages]:
        return [self.teller.tell(record) for record in records]

    async def _write(self, answers: Sequence[OccurrenceMessages], tickets: Sequence[Ticket], began_ms: int) -> None:
        """All in one transaction; where one of it is refused, each in one of its own."""
        try:
            consumed = self.consumed.offset(tickets)
            await self.writer.write([message for each in answers for message in each.messages], consumed)
            if consumed is not None:
                self.consumed.committed(consumed)
        except RefusedError as error:
            if len(answers) > 1:
                for each, ticket in zip(answers, tickets, strict=True):
                    await self._write([each], [ticket], began_ms)
                return
            if not answers or answers[0].error is not None:
                raise  # not even a dead letter is taken
            self.limit.amend(error.code)
            await self._write([self.teller.refused(answers[0].record, error.of_the_document)], tickets, began_ms)
            return
        for each, ticket in zip(answers, tickets, strict=True):
            self.positions.finish(ticket)
            self.told(each, began_ms)
