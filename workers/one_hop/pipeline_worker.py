"""documents → tagged-documents and entity-mentions in one process: all stages and the join, without topics in between.

    records ──batch──▶ stages (on the engine's thread) ──▶ join of the partition ──write loop──▶ one transaction
          └───known log lines, without waiting────────────▶

A log line whose template is known needs no model, and waits for none: it overtakes messages that do, within
``worker.lines_ahead``, unless one of them is about its own document. The offset that is committed stays before the
oldest message that is not finished, and outcomes ahead of it are remembered.

A partition has one owner, as in the aggregator (:mod:`workers.join.partition_owner`): fenced, and knowing every outcome
that was ever committed, whichever topology wrote it. What a document leads to is one transaction: its outcome, mentions
and dead letters, what is remembered of it, and how far the consumer group has come. So a message that comes again, to
this process or to the next owner, was not answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from typing_extensions import override

from el4ner.errors import DocumentError
from el4ner.pipeline import Pipeline
from el4ner.serialize import manifest_to_json
from workers.join.agent import TICK_SECONDS, World
from workers.join.join_telemetry import JoinTelemetry
from workers.join.outcome_writer import OutcomeWriter
from workers.join.owned_partition import OwnedPartition, TakenMessage
from workers.join.partition_owner import PartitionOwner
from workers.join.stage_messages import join_rules
from workers.join.write_loop import WriteLoop
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.one_hop.journeys import DocumentAnswer, Journey, TaggedJourney, Teller
from workers.one_hop.overtaking import Overtaking, known_journeys, whose
from workers.one_hop.tagging import TAGGING, TaggingTelemetry
from workers.roles import PIPELINE
from workers.stages.batch_worker import BatchWorker, Received
from workers.stages.crash_journal import CrashJournal
from workers.stages.engine_calls import EngineCalls, Owner
from workers.stages.failure_limit import FailureLimit
from workers.stages.stage import Deleted, Failure, Work
from workers.stages.stage_telemetry import StageTelemetry, log_failure
from workers.stages.table import EXTRACT, STAGE_TABLE, reading
from workers.stages.unread_pools import ALL_READ, UnreadPools
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic

__all__ = ["PipelineWorker"]

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _TakenDocument(TakenMessage):
    """A message of ``documents`` with its answer. ``began_ms``: when the work on it began."""

    answer: DocumentAnswer | None = None
    began_ms: int = 0


class PipelineWorker(BatchWorker):
    """The agent of all stages."""

    def __init__(
        self, app: StageApp, owner: Owner, world: World, telemetry: Telemetry, pools: UnreadPools = ALL_READ
    ) -> None:
        settings, worker = app.settings, app.settings.worker
        # Who reads the stages' messages wants to read all of them, in their order.
        super().__init__(app, Topic.DOCUMENTS, owner, pools, ahead=0 if worker.publish_stages else worker.lines_ahead)
        self._world = world

        def recorder(stage: str) -> StageTelemetry:
            return StageTelemetry(telemetry, stage, clock_ms=world.clock_ms, random=world.random, group=app.group)

        self._recorder = recorder(PIPELINE)
        self._reads = reading(EXTRACT, settings.kafka)
        # A journal for each stage: a document that kills one of them has the answers of those before.
        self._calls = [
            EngineCalls(
                stage,
                CrashJournal(worker.data_dir, f"{PIPELINE}.{stage.name}"),
                worker,
                app.backoff,
                self._stopping,
                recorder(stage.name),
            )
            for stage in STAGE_TABLE.values()
        ]
        # All stages in one call. Its notes are those of the first stage: after a death the stages are asked one by one,
        # which shows whose it was.
        self._tokens = TaggingTelemetry(
            telemetry, PIPELINE, clock_ms=world.clock_ms, random=world.random, group=app.group
        )
        self._tagging = EngineCalls(TAGGING, self._calls[0].journal, worker, app.backoff, self._stopping, self._tokens)
        self._journal = CrashJournal(worker.data_dir, PIPELINE)
        self._limit = FailureLimit(run=worker.max_failure_run, share=worker.max_failure_share)
        self._teller = Teller(
            settings.method, app.names, world.random, publishes=worker.publish_stages, refusal=app.refusal
        )
        joins = JoinTelemetry(telemetry, clock_ms=world.clock_ms, stage=PIPELINE, group=app.group)
        self._outcomes = OutcomeWriter(app, world, joins, self._journal, finished=self._finished)
        self._partitions = PartitionOwner(
            app, world, join_rules(settings), self._outcomes, joins, write=self._write, consumes=Topic.DOCUMENTS
        )
        self._partitions.observe(telemetry.metrics)
        self._overtaking = Overtaking(app.positions, worker.lines_ahead)
        # Who reads the stages' messages wants to read all of them.
        self._lets_pass = worker.lines_ahead > 0 and not worker.publish_stages
        self._known_lines: Pipeline | None = None
        app.consumer.commits = False
        app.task(self._tick)

    @property
    @override
    def _call_seconds(self) -> float | None:
        return max(
            (seconds for calls in [self._tagging, *self._calls] if (seconds := calls.seconds) is not None), default=None
        )

    # --- from messages to outcomes ---

    @override
    async def _receive(self, records: Iterable[Record], generation: int) -> None:
        left = iter(records)
        while chunk := list(islice(left, self._settings.worker.batch_documents)):
            await self._batcher.put(self._let_pass(chunk, generation))
            await self._room({record.partition for record in chunk})
            await asyncio.sleep(0)

    def _let_pass(self, records: Sequence[Record], generation: int) -> list[Received]:
        """Tell what is known of these messages without a model; those that are left wait for one."""
        began = self._world.clock_ms()
        read = [self._read(record) for record in records]
        known = self._known(read)
        waiting: list[Received] = []
        passing: list[tuple[Any, Record, Ticket]] = []
        for record, item in zip(records, read, strict=True):
            document = whose(item)
            journey = known.get(record.offset)
            # Once more: one before it in this batch may be about the same document.
            if journey is not None and self._overtaking.may_pass(record, document):
                ticket = self.app.ticket(record, generation)
                if ticket is not None:
                    passing.append((journey, record, ticket))
                continue
            self._overtaking.wait(record, document)
            waiting.append(Received(record, generation, item))
        if passing:
            self._take_in(passing, began, were_asked=False)
        return waiting

    @override
    def _read(self, record: Record) -> Work[Any] | Failure | Deleted | None:
        return self._reads.read(record, max_document_chars=self._settings.method.max_document_chars)

    def _known(self, read: Sequence[Work[Any] | Failure | Deleted | None]) -> Mapping[int, TaggedJourney]:
        """By the message's offset, since all are of one partition."""
        pipeline, journal = self._known_lines, self._calls[0].journal
        if pipeline is None:
            return {}
        works = [
            item
            for item in read
            if isinstance(item, Work)
            and self._overtaking.may_pass(item.record, item.document.id)
            and not self._has_suspects([item])
        ]
        if not works:
            return {}
        # Whoever dies over them leaves a note, as with an engine.
        with journal.answering([work.record for work in works]):
            return known_journeys(pipeline, works)

    @override
    async def _work(self, taken: Sequence[tuple[Received, Ticket]]) -> None:
        began = self._world.clock_ms()
        read = [received.read or self._read(received.record) for received, _ in taken]
        works = [item for item in read if isinstance(item, Work)]
        # What is not for a model stays behind what is with one: they may be about one document.
        asks = bool(works) or self._at_engine > 0
        journeys = iter(await self._asked(self._journeys, works) if asks else ())
        items = [next(journeys) if isinstance(item, Work) else item for item in read]
        for group in self._calls[0].journal.groups([received.record for received, _ in taken]):
            self._take_in([(items[index], taken[index][0].record, taken[index][1]) for index in group], began)
        await self._room({received.record.partition for received, _ in taken})

    async def _room(self, partitions: Iterable[int]) -> None:
        """Wait as long as more has gathered in these partitions than is written at once."""
        for partition in partitions:
            if (owned := self._partitions.get(partition)) is not None:
                await owned.writes.room()

    def _journeys(self, pipeline: Any, works: Sequence[Work[Any]]) -> list[Journey | TaggedJourney]:
        """Ask all stages about a batch. On the engine's thread.

        One call does it, unless somebody wants to know what each stage says: who reads their messages, or we ourselves
        of a document that failed or has killed a worker.
        """
        if self._lets_pass:
            self._known_lines = pipeline  # from now on it may know some
        if self._settings.worker.publish_stages or self._has_suspects(works):
            return list(self._by_stage(pipeline, works))
        tagged = [result.value for result in self._tagging.results(pipeline, works)]
        self._tokens.tokens(pipeline.tagging_usage)
        apart = [work for work, value in zip(works, tagged, strict=True) if isinstance(value, DocumentError)]
        by_stage = iter(self._by_stage(pipeline, apart))
        manifests: dict[str, dict[str, Any]] = {}
        journeys: list[Journey | TaggedJourney] = []
        for work, value in zip(works, tagged, strict=True):
            if isinstance(value, DocumentError):
                journeys.append(next(by_stage))
                continue
            if value.pool not in manifests:
                manifests[value.pool] = {
                    stage: manifest_to_json(pipeline.manifest(stage, value.pool)) for stage in STAGE_TABLE
                }
            journeys.append(TaggedJourney(work, value, manifests[value.pool]))
        return journeys

    def _has_suspects(self, works: Sequence[Work[Any]]) -> bool:
        """Whether a process died over any of them."""
        journals = [calls.journal for calls in self._calls if calls.journal.has_suspects]
        return any(journal.deaths(work.record) for journal in journals for work in works)

    def _by_stage(self, pipeline: Any, works: Sequence[Work[Any]]) -> list[Journey]:
        """Ask one stage after another, each about what the one before has answered."""
        results: list[list[Any]] = [[] for _ in works]
        going = list(enumerate(works))
        for calls in self._calls:
            answered = calls.results(pipeline, [work for _, work in going])
            still_going = []
            for (index, work), result in zip(going, answered, strict=True):
                results[index].append(result)
                if not isinstance(result.value, DocumentError):
                    still_going.append((index, Work(work.record, work.document, result.value, work.carried)))
            going = still_going
        return [Journey(work, own) for work, own in zip(works, results, strict=True)]

    def _take_in(self, items: Sequence[tuple[Any, Record, Ticket]], began_ms: int, *, were_asked: bool = True) -> None:
        """Tell the joins. What is raised here is a bug, and is blamed on these documents."""
        now_ms, journal = self._world.clock_ms(), self._calls[0].journal
        records = [record for _, record, _ in items]
        with journal.answering(records):
            answers = [self._teller.tell(item, now_ms=now_ms) for item, _, _ in items]
        if were_asked:  # what needed no model says nothing about whether the models are well
            self._limit.check([None if answer.error is None else answer.error.code for answer in answers])
        touched = set()
        with journal.answering(records):
            for answer, (_, record, ticket) in zip(answers, items, strict=True):
                owned = self._partitions.get(record.partition)
                # Taken away, and perhaps given back since: the message comes again, here or elsewhere.
                if owned is not None and self.app.positions.is_current(ticket):
                    self._join(owned, _TakenDocument(ticket, answer.letters, answer.published, answer, began_ms))
                    self._overtaking.told(record, answer.document)
                    touched.add(owned)
        for owned in touched:
            owned.writes.wake()

    def _join(self, owned: OwnedPartition, taken: _TakenDocument) -> None:
        now = self._world.monotonic_ms()
        inputs = () if taken.answer is None else taken.answer.inputs
        free = [owned.join.apply(received, taken, now=now) for received in inputs]
        if None in free:
            return
        if taken.leads_to_more:
            owned.loose.append(taken)
        else:
            # It leads to nothing: the join knows the document already.
            self.app.positions.finish(taken.ticket)
            self._finished([taken])

    def _finished(self, messages: Sequence[TakenMessage]) -> None:
        now = self._world.clock_ms()
        for taken in messages:
            if not isinstance(taken, _TakenDocument) or (answer := taken.answer) is None:
                continue
            self.documents += 1
            self.failures += answer.error is not None
            for calls in self._calls:
                calls.journal.settled(answer.record, given_up=answer.error is not None)
            self._recorder.told(
                answer.record,
                document=answer.document,
                error=answer.error,
                deleted=answer.deletes,
                trace=answer.trace,
                began_ms=taken.began_ms,
                now_ms=now,
            )
            if answer.error is not None:
                log_failure(PIPELINE, answer.record, answer.document, answer.trace, answer.error)

    async def _write(self, writes: WriteLoop) -> None:
        try:
            await writes.run()
        except Exception as error:
            self._crashed = True
            self.app.fail(error)
            raise

    async def _tick(self) -> None:
        while not self.app.should_stop:
            await asyncio.sleep(TICK_SECONDS)
            for owned in self._partitions.all:
                committed = None if owned.consumed is None else owned.consumed.committed_offset
                owned.join.tick(now=self._world.monotonic_ms(), committed=committed)
                owned.look_at_offset()
                owned.writes.wake()

    # --- partitions come and go ---

    @override
    async def take_over(self) -> None:
        self._overtaking.clear()
        self._recorder.assigned()
        for journal in self._journals:
            await asyncio.to_thread(journal.take_over)
        await self._partitions.take_over()

    @override
    async def drain(self) -> None:
        # What is left is harmless: the next owner fences what is still on its way, and does it again.
        until = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        await super().drain()
        for owned in self._partitions.all:
            drained = await owned.writes.drain(until)
            owned.look_at_offset()
            if not (drained and await owned.writes.drain(until)):
                log.warning("what is settled is left to the next owner", extra={"stage": PIPELINE})
                break
        await self._partitions.let_go()

    @override
    async def _let_go(self) -> None:
        await self._partitions.let_go()
        if not self._crashed and not self._tasks:
            for journal in self._journals:
                journal.close()

    @property
    def _journals(self) -> list[CrashJournal]:
        return [self._journal, *(calls.journal for calls in self._calls)]
