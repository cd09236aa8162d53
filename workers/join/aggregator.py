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
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from el4ner.assemble import assemble_by
from el4ner.errors import MessageError
from el4ner.serialize import dumps, entities_from_json, types_from_json
from el4ner.types import TaggedDocument
from workers.config import StreamSettings
from workers.join.changelog import Recovered, read_changelog
from workers.join.join_telemetry import JoinTelemetry
from workers.join.outcome_writer import OutcomeWriter, OwnedPartition, PendingLetter
from workers.join.partition_join import PartitionJoin
from workers.join.rules import Deletion, JoinInput, JoinRules, ReceivedAnswer
from workers.join.write_loop import WriteLoop
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.kafka.transactions import TransactionalWriter
from workers.messages.envelope import (
    REVISION,
    STATUS,
    Record,
    coordinates,
    dead_letter,
    decode,
    document_id,
    failed_value,
    origin_of,
    whose_answer,
)
from workers.messages.headers import RandomBytes, find
from workers.roles import AGGREGATE
from workers.stages.table import STAGE_TABLE
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic, changelog_name, topic_name

__all__ = ["Aggregator", "build", "join_rules", "read_input"]

log = logging.getLogger(__name__)

GRACE_MS: Final = 30_000
"""A document that is open for long gets so much more after a restart, for answers that wait in the topics."""
TICK_SECONDS: Final = 0.25
_YIELD_EVERY: Final = 50
_STAGE_OF: Final = {stage.output: stage.name for stage in STAGE_TABLE.values()}


def build(
    app: StageApp,
    *,
    clock_ms: Callable[[], int],
    monotonic_ms: Callable[[], int],
    random: RandomBytes,
    telemetry: Telemetry,
) -> Aggregator:
    """The worker of the join."""
    return Aggregator(app, clock_ms=clock_ms, monotonic_ms=monotonic_ms, random=random, telemetry=telemetry)


def join_rules(settings: StreamSettings) -> JoinRules:
    """The join's rules by configuration."""
    method = settings.method

    def read(stage: str, value: bytes) -> Mapping[str, Any]:
        return decode(STAGE_TABLE[stage].output, value)

    def assembled(stage: str, body: Mapping[str, Any]) -> TaggedDocument:
        result = entities_from_json(body) if stage == "validate" else types_from_json(body)
        return assemble_by(method, result)

    return JoinRules(read=read, assemble=assembled, deadline_ms=int(settings.worker.deadline_seconds * 1000))


def read_input(record: Record) -> JoinInput:
    """What a message tells the join, by its headers if they say enough.

    Raises:
        MessageError: the value is no stage message, and no header says whose it is.
    """
    origin = origin_of(record)
    traced = find(record.headers, "traceparent")
    trace = None if traced is None else traced.decode("ascii", "replace")
    if record.value is None:
        return Deletion(document_id(record, None), origin, trace)
    stage, place = _STAGE_OF[record.topic], (record.offset, record.timestamp_ms)
    subject, revision, status = (find(record.headers, name) for name in ("ce_subject", REVISION, STATUS))
    if subject and revision and revision.isdigit() and len(revision) <= 16 and status in (b"ok", b"failed"):
        document = subject.decode("utf-8", "replace")
        return ReceivedAnswer(
            document, int(revision), stage, status == b"failed", record.value, origin, trace, place, record
        )
    body = decode(record.topic, record.value)
    inner = body["document"]
    failed = body["status"] == "failed"
    return ReceivedAnswer(inner["id"], inner["revision"], stage, failed, record.value, origin, trace, place, record)


class Aggregator:
    """The join's agent.

    Args:
        clock_ms: the wall clock, for what is written.
        monotonic_ms: a clock that never jumps, for deadlines.
    """

    def __init__(
        self,
        app: StageApp,
        *,
        clock_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        random: RandomBytes,
        telemetry: Telemetry,
    ) -> None:
        settings = app.settings
        self.app = app
        self._settings = settings
        self._clock_ms = clock_ms
        self._monotonic_ms = monotonic_ms
        self._telemetry = JoinTelemetry(telemetry, clock_ms=clock_ms)
        self._outcomes = OutcomeWriter(
            app, clock_ms=clock_ms, monotonic_ms=monotonic_ms, random=random, telemetry=self._telemetry
        )
        self._observe(telemetry.metrics)
        self._join = join_rules(settings)
        self._changelog = changelog_name(settings.kafka)
        self._owned: dict[int, OwnedPartition] = {}
        self._changing = asyncio.Lock()
        topics = (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS)
        # What opens documents is held back when too many are open. A verdict only ever closes one.
        self._held_back = frozenset(topic_name(settings.kafka, topic) for topic in topics[:2])
        app.agent(app.raw_topic(*topics), name="el4ner-aggregate", concurrency=1)(self.run)
        app.task(self._tick)
        app.prepare = self.take_over

    # --- the join's size, for metrics and health ---

    batch_seconds: Final = None
    """There is no engine."""

    @property
    def documents(self) -> int:
        """Outcomes that were written."""
        return self._outcomes.documents

    @property
    def failures(self) -> int:
        """Those of documents that failed."""
        return self._outcomes.failures

    @property
    def open_documents(self) -> int:
        """Documents that wait for an answer."""
        return sum(owned.joins.open_documents for owned in self._owned.values())

    @property
    def open_bytes(self) -> int:
        """What they take."""
        return sum(owned.joins.open_bytes for owned in self._owned.values())

    @property
    def remembered_documents(self) -> int:
        """Documents whose outcome is known."""
        return sum(owned.joins.remembered_documents for owned in self._owned.values())

    @property
    def oldest_open_seconds(self) -> float:
        """For how long the document has been open that is open longest."""
        begun = [since for owned in self._owned.values() if (since := owned.joins.oldest_since()) is not None]
        return (self._monotonic_ms() - min(begun)) / 1000 if begun else 0.0

    @property
    def is_holding_back(self) -> bool:
        """Whether no new documents are read, because too many are open."""
        return bool(self.app.consumer.paused)

    def _observe(self, metrics: Metrics) -> None:
        metrics.observe("el4ner_join_open_documents", lambda: self.open_documents)
        metrics.observe("el4ner_join_open_bytes", lambda: self.open_bytes)
        metrics.observe("el4ner_join_oldest_open_seconds", lambda: self.oldest_open_seconds)
        metrics.observe("el4ner_join_remembered_documents", lambda: self.remembered_documents)
        metrics.observe("el4ner_join_paused", lambda: self.is_holding_back)

    # --- messages ---

    async def run(self, stream: Any) -> None:
        """The agent."""
        try:
            async for event in stream.noack().events():
                for count, (record, ticket) in enumerate(self.app.take(event), 1):
                    owned = self._owned.get(record.partition)
                    if owned is None:
                        break  # taken away meanwhile: it comes again
                    self._handle(owned, record, ticket)
                    if count % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                    await owned.writes.room(owned.is_full)
                self._hold_back()
        except Exception as error:
            self.app.fail(error)
            raise

    def _handle(self, owned: OwnedPartition, record: Record, ticket: Ticket) -> None:
        """Take one message in. Its ticket is finished when what it led to is committed."""
        now = self._monotonic_ms()
        try:
            free = owned.joins.apply(read_input(record), ticket, now=now)
        except MessageError as error:
            self._refuse(owned, record, ticket, error)
        else:
            if free is not None:
                self.app.positions.finish(free)
        owned.writes.wake()

    def _refuse(self, owned: OwnedPartition, record: Record, ticket: Ticket, error: MessageError) -> None:
        """A message that cannot be read. The stage after it sends it to the dead letters; after the last one, we do."""
        stage = _STAGE_OF[record.topic]
        extra = {"stage": AGGREGATE, "source": coordinates(record)}
        log.warning("a stage's message cannot be read: %s", error, extra=extra)
        if record.topic is not Topic.VALIDATION_VERDICTS:
            self.app.positions.finish(ticket)
            return
        whose, revision = whose_answer(record)
        letter = dead_letter(record, stage=AGGREGATE, error=error, document=whose, attempts=1, now_ms=self._clock_ms())
        if whose is None:
            owned.letters.append(PendingLetter(letter, error.code, ticket))
            return
        value = failed_value(stage, document=whose, revision=revision, text=None, pool=None, error=error, carried={})
        failed = ReceivedAnswer(whose, revision, stage, True, dumps(value), origin_of(record))
        free = owned.joins.apply(failed, ticket, now=self._monotonic_ms())
        owned.letters.append(PendingLetter(letter, error.code, free))

    def _hold_back(self) -> None:
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

    # --- partitions come and go ---

    async def take_over(self) -> None:
        """Own the partitions that were assigned: fence, then read the changelog. Nothing else is read meanwhile."""
        self._telemetry.assigned()
        await asyncio.to_thread(self._outcomes.take_over)
        async with self._changing:
            await self._let_go()
            partitions = sorted({tp.partition for tp in self.app.consumer.assignment()})
            owned = await asyncio.gather(*(self._own(partition) for partition in partitions))
            self._owned = {one.partition: one for one in owned}
            for one in owned:
                one.task = asyncio.create_task(one.writes.run())
                one.task.add_done_callback(self._done)
                one.writes.wake()

    async def _own(self, partition: int) -> OwnedPartition:
        settings = self._settings
        writer = TransactionalWriter(
            settings.kafka,
            self.app.names,
            partition,
            limits=self.app.limits,
            backoff=self.app.backoff,
            ended=self._telemetry.transaction,
        )
        await writer.start()
        joins: PartitionJoin[Ticket] = PartitionJoin(
            self._join,
            remember_ms=int(settings.worker.remember_seconds * 1000),
            checkpoint_ms=int(settings.worker.checkpoint_seconds * 1000),
        )
        recovered = await read_changelog(settings.kafka, self._changelog, partition)
        self._restore(joins, recovered)
        if recovered.records:
            log.info(
                "partition taken over",
                extra={
                    "stage": AGGREGATE,
                    "partition": partition,
                    "open": joins.open_documents,
                    "remembered": joins.remembered_documents,
                },
            )
        return self._owned_by(partition, writer, joins)

    def _owned_by(self, partition: int, writer: TransactionalWriter, joins: PartitionJoin[Ticket]) -> OwnedPartition:
        owned = OwnedPartition(partition, writer, joins)
        owned.writes = WriteLoop(lambda: owned.has_work, lambda: self._outcomes.write_group(owned))
        return owned

    def _restore(self, joins: PartitionJoin[Ticket], recovered: Recovered) -> None:
        worker = self._settings.worker
        wall, now = self._clock_ms(), self._monotonic_ms()
        remember_ms = int(worker.remember_seconds * 1000)
        oldest = max(0, int(worker.deadline_seconds * 1000) - GRACE_MS)
        for number in sorted(recovered.done):
            one = recovered.done[number]
            # The clock that wrote it may not be ours: no later than what we would remember, and never in the past.
            left = min(max(one.until - wall, 0), remember_ms)
            joins.restore_closed(number, now + left, one.documents)
        for document, state in recovered.open.items():
            age = min(max(wall - state.since, 0), oldest)
            joins.restore_open(document, replace(state, since=now - age))

    async def drain(self) -> None:
        """Write what is settled, within ``worker.shutdown_seconds``, and own nothing any more."""
        until = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        for owned in self._owned.values():
            if not await owned.writes.drain(until):
                # Harmless: the next owner fences what is still on its way, and does it again.
                log.warning("outcomes are left to the next owner", extra={"stage": AGGREGATE})
                break
        async with self._changing:
            await self._let_go()

    async def release(self) -> None:
        """Own nothing any more, for good."""
        async with self._changing:
            await self._let_go()
        self._outcomes.close()

    async def _let_go(self) -> None:
        owned, self._owned = list(self._owned.values()), {}
        for one in owned:
            one.task.cancel()
            one.writes.end()
        await asyncio.gather(*(one.task for one in owned), return_exceptions=True)
        await asyncio.gather(*(one.writer.stop() for one in owned))
        self.app.consumer.paused = frozenset()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(error)

    async def _tick(self) -> None:
        while not self.app.should_stop:
            await asyncio.sleep(TICK_SECONDS)
            for owned in list(self._owned.values()):
                owned.joins.tick(now=self._monotonic_ms())
                owned.writes.wake()
            self._hold_back()
