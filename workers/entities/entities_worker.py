"""The agent of canonical entities: tagged documents in, entities out.

    tagged-documents ──▶ names of each document ──▶ entity-occurrences
                     a transaction of each partition
    entity-occurrences, entity-decisions ──▶ the book of entities ──▶ entities, entity-trends
                     one partition, one owner: a transaction with the book's changelog

More processes share the tagged documents. One of them has the book: the others stand by for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from workers.entities.book_partition import BookPartition, restored_book
from workers.entities.occurrence_partition import OccurrencePartition, TakenRecord
from workers.entities.occurrences import OccurrenceMessages, OccurrenceTeller
from workers.entities.state_changelog import read_state
from workers.join.agent import World
from workers.join.answered_partition import AnsweredPartition
from workers.join.owned_partition import ConsumedPartition
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.roles import ENTITIES
from workers.stages.document_schemas import DocumentSchemas
from workers.stages.failure_limit import FailureLimit
from workers.stages.stage_telemetry import StageTelemetry
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic, entities_changelog_name

__all__ = ["EntitiesWorker"]

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
_BOOK_TOPICS: Final = (Topic.ENTITY_OCCURRENCES, Topic.ENTITY_DECISIONS)
_BOOK: Final = f"{ENTITIES}-book"
"""The role under whose transactional id the book is written."""

Place = tuple[Topic, int]


class OwnedPart(Protocol):
    """What this process owns of the stream."""

    async def work(self, taken: Sequence[TakenRecord]) -> None:
        """Answer messages of one partition."""

    async def look(self) -> None:
        """Do what is due without a message."""

    async def stop(self) -> None:
        """Let go of it."""


class EntitiesWorker:
    """The agent of canonical entities."""

    batch_seconds: Final = None
    """There is no engine."""
    held: Final = 0
    """Nothing waits for a pool."""

    def __init__(self, app: StageApp, world: World, telemetry: Telemetry) -> None:
        self.app = app
        self.documents = 0
        """Tagged documents that were answered."""
        self.failures = 0
        """Those that could not be read."""
        self._settings = app.settings
        self._world = world
        self._metrics = telemetry.metrics
        self._recorder = StageTelemetry(
            telemetry, ENTITIES, clock_ms=world.clock_ms, random=world.random, group=app.group
        )
        worker = app.settings.worker
        self._teller = OccurrenceTeller(clock_ms=world.clock_ms, random=world.random)
        self._limit = FailureLimit(run=worker.max_failure_run, share=worker.max_failure_share)
        self._parts: dict[Place, OwnedPart] = {}
        self._book: BookPartition | None = None
        self._schemas = DocumentSchemas.of(app.settings.kafka, app.backoff, Topic.TAGGED_DOCUMENTS)
        self._working = asyncio.Lock()
        """One batch at a time; partitions come and go between two."""
        topics = app.raw_topic(Topic.TAGGED_DOCUMENTS, *_BOOK_TOPICS)
        app.agent(topics, name=f"el4ner-{app.stage}", concurrency=1)(self.run)
        app.task(self._look)
        app.prepare = self.take_over
        app.consumer.commits = False
        self._observe()

    @property
    def stuck_seconds(self) -> float:
        """For how long a partition has had messages to finish, and has not got on."""
        return self.app.positions.stuck_seconds

    async def run(self, stream: Any) -> None:
        """Take in what the topics bring."""
        try:
            async for event in stream.noack().events():
                generation = event.message.generation_id
                records = list(self.app.records(event.message.value))
                if self._schemas is not None and records and records[0].topic is Topic.TAGGED_DOCUMENTS:
                    records = await self._schemas.named_by(records)
                async with self._working:
                    await self._work(records, generation)
        except Exception as error:
            # Faust would restart the agent and leave the events that it held behind.
            self.app.fail(error)
            raise

    async def _work(self, records: Sequence[Record], generation: int) -> None:
        taken = [(record, ticket) for record in records if (ticket := self.app.ticket(record, generation)) is not None]
        part = self._parts.get((records[0].topic, records[0].partition)) if records else None
        if part is None or not taken:
            return  # it was taken away: the messages come again
        try:
            await part.work(taken)
        except BaseException:
            if (book := self._book) is not None and part is book:
                # It may have learned what is not written.
                self._parts, self._book = {}, None
                await book.stop()
            raise

    async def _look(self) -> None:
        try:
            while not self.app.should_stop:
                await asyncio.sleep(_LOOK_SECONDS)
                async with self._working:
                    for part in dict.fromkeys(self._parts.values()):
                        await part.look()
        except Exception as error:
            self.app.fail(error)
            raise

    # --- partitions come and go ---

    async def take_over(self) -> None:
        """Own the partitions that were assigned. Nothing is read of them before this returns."""
        async with self._working:
            self._recorder.assigned()
            by_name = {name: topic for topic, name in self.app.names.items()}
            places = sorted({(by_name[tp.topic], tp.partition) for tp in self.app.consumer.assignment()})
            owns_book = any(topic in _BOOK_TOPICS for topic, _ in places)
            # The book stays: it is what was committed. If somebody else has had it meanwhile, our writer is fenced.
            await self._let_go(but_the_book=owns_book)
            if owns_book and self._book is None:
                self._book = await self._own_book()
            numbers = [number for topic, number in places if topic is Topic.TAGGED_DOCUMENTS]
            parts = await asyncio.gather(*(self._own(number) for number in numbers))
            self._parts = {(Topic.TAGGED_DOCUMENTS, number): part for number, part in zip(numbers, parts, strict=True)}
            if self._book is not None:
                self._parts |= {(topic, 0): self._book for topic in _BOOK_TOPICS}
            # Faust has asked before we fenced: what was in a transaction then is committed now, or never will be.
            await self.app.consumer.seek_again()

    async def _own(self, partition: int) -> OccurrencePartition:
        answered = AnsweredPartition(
            await self.app.writer(partition, role=ENTITIES, ended=self._metrics.transaction),
            ConsumedPartition.of(self.app, Topic.TAGGED_DOCUMENTS, partition),
            self.app.positions,
            self._limit,
            self._teller.refused,
            self._delivered,
        )
        return OccurrencePartition(answered, self._teller, self._world.clock_ms)

    async def _own_book(self) -> BookPartition:
        writer = await self.app.writer(0, role=_BOOK, ended=self._metrics.transaction)
        changelog = entities_changelog_name(self._settings.kafka)
        state = await read_state(self._settings.kafka, changelog)
        book = await asyncio.to_thread(restored_book, self._settings.entities, state)
        log.info(
            "entities taken over",
            extra={"stage": ENTITIES, "names": len(book.names.names), "documents": book.names.documents},
        )
        return BookPartition(
            book,
            self._settings.entities,
            changelog,
            writer,
            {topic: ConsumedPartition.of(self.app, topic, 0) for topic in _BOOK_TOPICS},
            self.app.positions,
            self._world,
            self._metrics.uncounted,
            self._recorder.letter,
        )

    def _delivered(self, told: OccurrenceMessages, began_ms: int) -> None:
        self.documents += 1
        self.failures += told.error is not None
        self._recorder.delivered(told, began_ms=began_ms)

    async def drain(self) -> None:
        """Finish what was begun, within ``worker.shutdown_seconds``. What is not comes again, here or elsewhere."""
        try:
            async with asyncio.timeout(self._settings.worker.shutdown_seconds), self._working:
                # A rebalance comes through here too: the book may stay.
                await self._let_go(but_the_book=True)
        except TimeoutError:
            log.warning("what is begun is left to the next owner", extra={"stage": ENTITIES})

    async def _let_go(self, *, but_the_book: bool) -> None:
        parts = {part for part in self._parts.values() if part is not self._book}
        self._parts = {}
        if self._book is not None and not but_the_book:
            parts.add(self._book)
            self._book = None
        await asyncio.gather(*(part.stop() for part in parts))

    async def release(self) -> None:
        """Stop for good."""
        await self._let_go(but_the_book=False)
        if self._schemas is not None:
            self._schemas.close()

    def _observe(self) -> None:
        def of_book(read: str) -> float:
            book = self._book
            if book is None:
                return 0
            names = book.book.names
            return {"names": len(names.names), "documents": names.documents, "evicted": names.evicted}[read]

        self._metrics.observe("el4ner_known_names", lambda: of_book("names"))
        self._metrics.observe("el4ner_known_documents", lambda: of_book("documents"))
        self._metrics.observe("el4ner_forgotten_names_total", lambda: of_book("evicted"))
