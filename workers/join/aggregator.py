"""The three stages' topics → tagged-documents and entity-mentions: the join, with its outcomes in transactions.

What is promised, and why it holds, is docs/guarantees.md. In short:

1. The aggregator that owns a partition of the topics is the only one that can write outcomes of its documents: they are
   written under the partition's transactional id, and taking the id over fences off the owner before.
2. Outcomes, their mentions, and the note that the documents are done are one transaction: all of it is there, or none.
3. Answers are acknowledged only when what they led to is committed, in an outcome or in a record of the open document.
   So nothing is lost: what was not committed comes again. And nothing is repeated: an owner reads the changelog after
   fencing and before any answer, so it knows every outcome that was ever committed (``worker.remember_seconds``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from typing_extensions import override

from el4ner.errors import MessageError
from workers.join.agent import JoinAgent, World
from workers.join.join_telemetry import JoinTelemetry
from workers.join.outcome_writer import OutcomeWriter
from workers.join.owned_partition import OwnedPartition, PendingLetter, TakenMessage
from workers.join.partition_owner import PartitionOwner
from workers.join.rules import Outcome
from workers.join.stage_messages import join_rules, read_input, unreadable_answer
from workers.join.write_loop import WriteLoop
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record, coordinates, dead_letter, whose_answer
from workers.roles import AGGREGATE
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic, topic_name

__all__ = ["Aggregator"]

log = logging.getLogger(__name__)


class Aggregator(JoinAgent):
    """The agent that joins the stages' answers. It owns the partitions that are assigned to it."""

    _recorder: JoinTelemetry

    def __init__(self, app: StageApp, world: World, telemetry: Telemetry) -> None:
        topics = (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS)
        recorder = JoinTelemetry(telemetry, clock_ms=world.clock_ms)
        super().__init__(app, world, recorder, topics)
        self._outcomes = OutcomeWriter(app, world, recorder, self._journal, committed=self._count)
        self._partitions = PartitionOwner(
            app, world, join_rules(app.settings), self._outcomes, recorder, write=self._write
        )
        # What opens documents is held back when too many are open. A verdict only ever closes one.
        self._held_back = frozenset(topic_name(app.settings.kafka, topic) for topic in topics[:2])
        self._partitions.observe(telemetry.metrics)
        telemetry.metrics.observe("el4ner_join_paused", lambda: self.is_holding_back)

    # --- for metrics and health ---

    @property
    def is_holding_back(self) -> bool:
        """Whether no new documents are read, because too many are open."""
        return bool(self.app.consumer.paused)

    # --- messages ---

    @override
    def _write_loops(self) -> Iterable[WriteLoop]:
        return [owned.writes for owned in self._partitions.all]

    @override
    def _write_loop_of(self, record: Record) -> WriteLoop | None:
        owned = self._partitions.get(record.partition)
        return None if owned is None else owned.writes

    @override
    def _take_in(self, record: Record, ticket: Ticket) -> Iterable[Ticket]:
        taken = TakenMessage(ticket)
        free = self._owned(record).join.apply(read_input(record), taken, now=self._world.monotonic_ms())
        return () if free is None else (ticket,)

    @override
    def _refuse(self, record: Record, ticket: Ticket, error: MessageError) -> None:
        """The stage after it sends it to the dead letters; a verdict is read by us alone, so we do."""
        extra = {"stage": AGGREGATE, "source": coordinates(record)}
        log.warning("a stage's message cannot be read: %s", error, extra=extra)
        if record.topic is not Topic.VALIDATION_VERDICTS:
            self.app.positions.finish(ticket)
            return
        owned = self._owned(record)
        document, revision = whose_answer(record)
        letter = dead_letter(
            record, stage=AGGREGATE, error=error, document=document, attempts=1, now_ms=self._world.clock_ms()
        )
        taken = TakenMessage(ticket, [PendingLetter(letter, AGGREGATE, error.code)])
        free: TakenMessage | None = taken
        if document is not None:
            failed = unreadable_answer(record, error, document=document, revision=revision)
            free = owned.join.apply(failed, taken, now=self._world.monotonic_ms())
        if free is not None:
            owned.loose.append(free)

    def _owned(self, record: Record) -> OwnedPartition:
        owned = self._partitions.get(record.partition)
        if owned is None:
            raise RuntimeError(f"partition {record.partition} is not owned here")
        return owned

    @override
    def _settle_due(self, *, now: int) -> None:
        for owned in self._partitions.all:
            owned.join.tick(now=now)

    @override
    def _limit_open_documents(self) -> None:
        worker = self._settings.worker
        documents, size = self._partitions.open_documents, self._partitions.open_bytes
        full = max(documents / worker.max_open_documents, size / (worker.max_open_mb << 20))
        if full >= 1.0 and not self.is_holding_back:
            log.warning(
                "too many documents are open: no new ones are read until verdicts come",
                extra={"stage": AGGREGATE, "open": documents, "open_bytes": size},
            )
            self.app.consumer.paused = self._held_back
        elif full < 0.9 and self.is_holding_back:
            self.app.consumer.paused = frozenset()

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        self.documents += len(outcomes)
        self.failures += sum(outcome.closed.status == "failed" for outcome in outcomes)

    # --- partitions come and go ---

    @override
    async def take_over(self) -> None:
        """Own the partitions that were assigned: fence, then read the changelog. Nothing else is read meanwhile."""
        await super().take_over()
        await self._partitions.take_over()
        self.app.consumer.paused = frozenset()

    @override
    async def drain(self) -> None:
        # What is left is harmless: the next owner fences what is still on its way, and does it again.
        await super().drain()
        await self._let_go()

    @override
    async def release(self) -> None:
        await self._let_go()
        await super().release()

    async def _let_go(self) -> None:
        await self._partitions.let_go()
        self.app.consumer.paused = frozenset()
