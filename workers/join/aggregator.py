"""The three stages' topics → tagged-documents and entity-mentions: the join, with its outcomes in transactions.

What is promised, and why it holds, is docs/guarantees.md. In short:

1. The aggregator that owns a partition of the topics is the only one that can write outcomes of its documents: they are
   written under the partition's transactional id, and taking the id over fences off the owner before.
2. Outcomes, their mentions, and the note that the documents are done are one transaction: all of it is there, or none.
3. Answers are acknowledged only when what they led to is committed, in an outcome or in a record of the open document.
   So nothing is lost: what was not committed comes again. And nothing is repeated: an owner reads the changelog after
   fencing and before any answer, so it knows every outcome that was ever committed (``worker.remember_seconds``).

There is no table of Faust's and no recovery of Faust's: its changelog knows no transactions, and a partition that was
taken over has to be fenced before its changelog is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from typing_extensions import override

from el4ner.errors import MessageError
from workers.join.agent import JoinAgent, World
from workers.join.changelog import Recovered, read_changelog
from workers.join.join_telemetry import JoinTelemetry
from workers.join.outcome_writer import OutcomeWriter, OwnedPartition, PendingLetter
from workers.join.partition_join import PartitionJoin
from workers.join.rules import Outcome
from workers.join.stage_messages import join_rules, read_input, unreadable_answer
from workers.join.write_loop import WriteLoop
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.kafka.transactions import TransactionalWriter
from workers.messages.envelope import Record, coordinates, dead_letter, whose_answer
from workers.roles import AGGREGATE
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic, changelog_name, topic_name

__all__ = ["Aggregator"]

log = logging.getLogger(__name__)

GRACE_MS: Final = 30_000
"""A document that is open for long gets so much more after a restart, for answers that wait in the topics."""


class Aggregator(JoinAgent):
    """The agent that joins the stages' answers. It owns the partitions that are assigned to it."""

    _recorder: JoinTelemetry

    def __init__(self, app: StageApp, world: World, telemetry: Telemetry) -> None:
        topics = (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS)
        recorder = JoinTelemetry(telemetry, clock_ms=world.clock_ms)
        super().__init__(app, world, recorder, topics)
        self._outcomes = OutcomeWriter(app, world, recorder, self._journal, committed=self._count)
        self._rules = join_rules(app.settings)
        self._changelog = changelog_name(app.settings.kafka)
        self._owned: dict[int, OwnedPartition] = {}
        self._changing = asyncio.Lock()
        # What opens documents is held back when too many are open. A verdict only ever closes one.
        self._held_back = frozenset(topic_name(app.settings.kafka, topic) for topic in topics[:2])
        observe = telemetry.metrics.observe
        observe("el4ner_join_open_documents", lambda: self.open_documents)
        observe("el4ner_join_open_bytes", lambda: self.open_bytes)
        observe("el4ner_join_oldest_open_seconds", lambda: self.oldest_open_seconds)
        observe("el4ner_join_remembered_documents", lambda: self.remembered_documents)
        observe("el4ner_join_paused", lambda: self.is_holding_back)

    # --- for metrics and health ---

    @property
    def open_documents(self) -> int:
        """Documents that wait for an answer."""
        return sum(owned.join.open_documents for owned in self._owned.values())

    @property
    def open_bytes(self) -> int:
        """The size of their messages."""
        return sum(owned.join.open_bytes for owned in self._owned.values())

    @property
    def remembered_documents(self) -> int:
        """Documents whose outcome is known."""
        return sum(owned.join.remembered_documents for owned in self._owned.values())

    @property
    def oldest_open_seconds(self) -> float:
        """For how long the document has been open that is open longest."""
        begun = [since for owned in self._owned.values() if (since := owned.join.oldest_since()) is not None]
        return (self._world.monotonic_ms() - min(begun)) / 1000 if begun else 0.0

    @property
    def is_holding_back(self) -> bool:
        """Whether no new documents are read, because too many are open."""
        return bool(self.app.consumer.paused)

    # --- messages ---

    @override
    def _write_loops(self) -> Iterable[WriteLoop]:
        return [owned.writes for owned in self._owned.values()]

    @override
    def _write_loop_of(self, record: Record) -> WriteLoop | None:
        owned = self._owned.get(record.partition)
        return None if owned is None else owned.writes

    @override
    def _take_in(self, record: Record, ticket: Ticket) -> Iterable[Ticket]:
        free = self._owned[record.partition].join.apply(read_input(record), ticket, now=self._world.monotonic_ms())
        return () if free is None else (free,)

    @override
    def _refuse(self, record: Record, ticket: Ticket, error: MessageError) -> None:
        """The stage after it sends it to the dead letters; a verdict is read by us alone, so we do."""
        extra = {"stage": AGGREGATE, "source": coordinates(record)}
        log.warning("a stage's message cannot be read: %s", error, extra=extra)
        if record.topic is not Topic.VALIDATION_VERDICTS:
            self.app.positions.finish(ticket)
            return
        owned = self._owned[record.partition]
        document, revision = whose_answer(record)
        letter = dead_letter(
            record, stage=AGGREGATE, error=error, document=document, attempts=1, now_ms=self._world.clock_ms()
        )
        free: Ticket | None = ticket
        if document is not None:
            failed = unreadable_answer(record, error, document=document, revision=revision)
            free = owned.join.apply(failed, ticket, now=self._world.monotonic_ms())
        owned.letters.append(PendingLetter(letter, error.code, free))

    @override
    def _settle_due(self, *, now: int) -> None:
        for owned in self._owned.values():
            owned.join.tick(now=now)

    @override
    def _limit_open_documents(self) -> None:
        worker = self._settings.worker
        full = max(self.open_documents / worker.max_open_documents, self.open_bytes / (worker.max_open_mb << 20))
        if full >= 1.0 and not self.is_holding_back:
            log.warning(
                "too many documents are open: no new ones are read until verdicts come",
                extra={"stage": AGGREGATE, "open": self.open_documents, "open_bytes": self.open_bytes},
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
        async with self._changing:
            await self._let_go()
            partitions = sorted({tp.partition for tp in self.app.consumer.assignment()})
            taken_over = await asyncio.gather(*(self._own(partition) for partition in partitions))
            self._owned = {owned.partition: owned for owned in taken_over}
            for owned in taken_over:
                owned.task = asyncio.create_task(self._write(owned.writes))
                owned.writes.wake()

    async def _own(self, partition: int) -> OwnedPartition:
        settings = self._settings
        writer = TransactionalWriter(
            settings.kafka,
            self.app.names,
            partition,
            limits=self.app.limits,
            backoff=self.app.backoff,
            ended=self._recorder.transaction,
        )
        await writer.start()
        join: PartitionJoin[Ticket] = PartitionJoin(
            self._rules,
            remember_ms=int(settings.worker.remember_seconds * 1000),
            checkpoint_ms=int(settings.worker.checkpoint_seconds * 1000),
        )
        recovered = await read_changelog(settings.kafka, self._changelog, partition)
        self._restore(join, recovered)
        if recovered.records:
            log.info(
                "partition taken over",
                extra={
                    "stage": AGGREGATE,
                    "partition": partition,
                    "open": join.open_documents,
                    "remembered": join.remembered_documents,
                },
            )
        return OwnedPartition(partition, writer, join, self._outcomes.write_group)

    def _restore(self, join: PartitionJoin[Ticket], recovered: Recovered) -> None:
        worker = self._settings.worker
        wall, now = self._world.clock_ms(), self._world.monotonic_ms()
        remember_ms = int(worker.remember_seconds * 1000)
        oldest = max(0, int(worker.deadline_seconds * 1000) - GRACE_MS)
        for number, remembered in sorted(recovered.done.items()):
            # The clock that wrote it may not be ours: no later than what we would remember, and never in the past.
            left = min(max(remembered.until - wall, 0), remember_ms)
            join.restore_closed(number, now + left, remembered.documents)
        for document, state in recovered.open.items():
            age = min(max(wall - state.since, 0), oldest)
            join.restore_open(document, replace(state, since=now - age))

    @override
    async def drain(self) -> None:
        # What is left is harmless: the next owner fences what is still on its way, and does it again.
        await super().drain()
        async with self._changing:
            await self._let_go()

    @override
    async def release(self) -> None:
        async with self._changing:
            await self._let_go()
        await super().release()

    async def _let_go(self) -> None:
        partitions, self._owned = list(self._owned.values()), {}
        for owned in partitions:
            owned.task.cancel()
            owned.writes.end()
        await asyncio.gather(*(owned.task for owned in partitions), return_exceptions=True)
        await asyncio.gather(*(owned.writer.stop() for owned in partitions))
        self.app.consumer.paused = frozenset()
