"""A partition whose messages are answered one by one: what they lead to and the group's offset are one transaction.

A partition has one writer (:mod:`workers.kafka.transactions`). Whoever takes it over fences the one before off, and
then asks for the committed offset: so what was committed is not read again, and what was not has left nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from el4ner.errors import DocumentError
from workers.join.owned_partition import ConsumedPartition
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.transactions import TransactionalWriter
from workers.messages.envelope import Record
from workers.stages.failure_limit import FailureLimit
from workers.stages.stage_telemetry import ToldMessage

__all__ = ["AnsweredPartition"]

Told = TypeVar("Told", bound=ToldMessage)


def _nothing_else(told: Sequence[ToldMessage], error: Exception) -> None:
    pass


@dataclass(eq=False)
class AnsweredPartition(Generic[Told]):
    """A partition that this process owns: its one writer, and how far it has come.

    Attributes:
        refused: the dead letter of a message whose answer is refused.
        delivered: called about each message whose answer is written, with when work on it began.
        failed: called about messages whose answers cannot be written, before the error is raised.
    """

    writer: TransactionalWriter
    consumed: ConsumedPartition
    positions: OffsetTracker
    limit: FailureLimit
    refused: Callable[[Record, DocumentError], Told]
    delivered: Callable[[Told, int], None]
    failed: Callable[[Sequence[Told], Exception], None] = _nothing_else

    async def write(self, told: Sequence[Told], tickets: Sequence[Ticket], began_ms: int) -> None:
        """Write what messages lead to in one transaction; where one of it is refused, each in one of its own."""
        self.limit.check([None if each.error is None else each.error.code for each in told])
        await self._write(told, tickets, began_ms)

    async def look(self) -> None:
        """Commit what lies behind the last message: marks of transactions, and what was aborted."""
        if self.consumed.offset() is not None:
            await self._write([], [], 0)

    async def stop(self) -> None:
        """Let go of it."""
        await self.writer.stop()

    async def _write(self, told: Sequence[Told], tickets: Sequence[Ticket], began_ms: int) -> None:
        try:
            consumed = self.consumed.offset(tickets)
            await self.writer.write([message for each in told for message in each.messages], consumed)
            if consumed is not None:
                self.consumed.committed(consumed)
        except RefusedError as error:
            if len(told) > 1:
                for each, ticket in zip(told, tickets, strict=True):
                    await self._write([each], [ticket], began_ms)
                return
            if not told or told[0].error is not None:
                raise  # not even a dead letter is taken
            self.limit.amend(error.code)
            await self._write([self.refused(told[0].record, error.of_the_document)], tickets, began_ms)
            return
        except Exception as error:
            self.failed(told, error)
            raise
        for each, ticket in zip(told, tickets, strict=True):
            self.positions.finish(ticket)
            self.delivered(each, began_ms)
