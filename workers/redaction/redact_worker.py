"""tagged-documents → redacted-documents: what a message leads to and the group's offset are one transaction.

    event (a fetch of one partition) ──batch──▶ redaction, on a thread ──▶ one transaction of the partition's writer

:mod:`workers.join.answered_partition` has the transactions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from el4ner.errors import DocumentError
from el4ner.redaction.key_ring import load_keys
from workers.join.agent import World
from workers.join.answered_partition import AnsweredPartition
from workers.join.owned_partition import ConsumedPartition
from workers.kafka.delivery import may_be_of_a_message
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.redaction.named_types import unknown_names
from workers.redaction.redacted_messages import RedactedMessages, RedactionTeller
from workers.roles import REDACT
from workers.stages.crash_journal import CrashJournal
from workers.stages.document_schemas import DocumentSchemas
from workers.stages.failure_limit import FailureLimit
from workers.stages.stage_telemetry import StageTelemetry
from workers.telemetry.recorder import Telemetry
from workers.topics import Topic

__all__ = ["RedactWorker"]

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
"""Documents of one transaction at most."""
_LOOK_AT_OFFSETS_SECONDS: Final = 1.0


class RedactWorker:
    """The agent of redaction.

    Raises:
        ConfigError: keys or libraries are missing that the settings need.
    """

    batch_seconds: Final = None
    """There is no engine."""
    held: Final = 0
    """Nothing waits for a pool."""

    def __init__(self, app: StageApp, world: World, telemetry: Telemetry) -> None:
        settings = app.settings
        self.app = app
        self.documents = 0
        """Messages that were answered."""
        self.failures = 0
        """Those whose documents could not be redacted."""
        self._settings = settings
        for mistake in unknown_names(settings):
            log.warning("%s", mistake, extra={"stage": REDACT})
        self._world = world
        self._metrics = telemetry.metrics
        self._recorder = StageTelemetry(
            telemetry, REDACT, clock_ms=world.clock_ms, random=world.random, group=app.group
        )
        self._teller = RedactionTeller(
            settings.redaction,
            load_keys(settings.redaction),
            # Limits are of the topics that there are.
            originals_exist=app.names[Topic.REDACTED_ORIGINALS] in app.limits.topics,
            clock_ms=world.clock_ms,
            random=world.random,
        )
        self._journal = CrashJournal(settings.worker.data_dir, REDACT)
        self._limit = FailureLimit(run=settings.worker.max_failure_run, share=settings.worker.max_failure_share)
        self._owned: dict[int, AnsweredPartition[RedactedMessages]] = {}
        self._schemas = DocumentSchemas.of(settings.kafka, app.backoff, Topic.TAGGED_DOCUMENTS)
        self._working = asyncio.Lock()
        """One batch at a time; partitions come and go between two."""
        app.agent(app.raw_topic(Topic.TAGGED_DOCUMENTS), name=f"el4ner-{app.stage}", concurrency=1)(self.run)
        app.task(self._look_at_offsets)
        app.prepare = self.take_over
        app.consumer.commits = False

    @property
    def stuck_seconds(self) -> float:
        """For how long a partition has had messages to finish, and has not got on."""
        return self.app.positions.stuck_seconds

    async def run(self, stream: Any) -> None:
        """Take in what the topic brings."""
        try:
            async for event in stream.noack().events():
                generation = event.message.generation_id
                records = list(self.app.records(event.message.value))
                if self._schemas is not None:
                    records = await self._schemas.named_by(records)
                for first in range(0, len(records), _AT_ONCE):
                    async with self._working:
                        await self._work(records[first : first + _AT_ONCE], generation)
        except Exception as error:
            # Faust would restart the agent and leave the events that it held behind.
            self.app.fail(error)
            raise

    async def _work(self, records: Sequence[Record], generation: int) -> None:
        """Answer messages of one partition, in their order."""
        taken = [(record, ticket) for record in records if (ticket := self.app.ticket(record, generation)) is not None]
        owned = self._owned.get(records[0].partition)
        if owned is None:
            return  # it was taken away: the messages come again
        began = self._world.clock_ms()
        for group in self._in_order([record for record, _ in taken]):
            pairs = [taken[index] for index in group]
            told = await asyncio.to_thread(self._told, [record for record, _ in pairs])
            await owned.write(told, [ticket for _, ticket in pairs], began)

    def _in_order(self, records: Sequence[Record]) -> list[list[int]]:
        """The indices of the records, in groups that are told together: one over which a process died is alone.

        Unlike elsewhere it is not put last: a later message about its document would be taken back by it.
        """
        groups: list[list[int]] = []
        together = False
        for index, record in enumerate(records):
            suspect = bool(self._journal.deaths(record))
            if together and not suspect:
                groups[-1].append(index)
            else:
                groups.append([index])
            together = not suspect
        return groups

    def _told(self, records: Sequence[Record]) -> list[RedactedMessages]:
        most = self._settings.worker.max_crashes
        with self._journal.answering(records):
            return [
                self._teller.tell(record)
                if (deaths := self._journal.deaths(record)) < most
                else self._teller.refused(record, _gave_up(deaths))
                for record in records
            ]

    def _delivered(self, told: RedactedMessages, began_ms: int) -> None:
        self._journal.settled(told.record, given_up=told.error is not None)
        self.documents += 1
        self.failures += told.error is not None
        if told.withheld is not None:
            self._metrics.withheld(told.withheld)
        self._recorder.delivered(told, began_ms=began_ms)

    def _failed(self, told: Sequence[RedactedMessages], error: Exception) -> None:
        if may_be_of_a_message(error):
            self._journal.blame([each.record for each in told])

    async def _look_at_offsets(self) -> None:
        """Commit what lies behind the last message: marks of transactions, and what was aborted."""
        try:
            while not self.app.should_stop:
                await asyncio.sleep(_LOOK_AT_OFFSETS_SECONDS)
                async with self._working:
                    for owned in self._owned.values():
                        await owned.look()
        except Exception as error:
            self.app.fail(error)
            raise

    # --- partitions come and go ---

    async def take_over(self) -> None:
        """Own the partitions that were assigned. Nothing is read of them before this returns."""
        async with self._working:
            await self._let_go()
            self._recorder.assigned()
            await asyncio.to_thread(self._journal.take_over)
            partitions = sorted({tp.partition for tp in self.app.consumer.assignment()})
            owned = await asyncio.gather(*(self._own(partition) for partition in partitions))
            self._owned = dict(zip(partitions, owned, strict=True))
            # Faust has asked before we fenced: what was in a transaction then is committed now, or never will be.
            await self.app.consumer.seek_again()

    async def _own(self, partition: int) -> AnsweredPartition[RedactedMessages]:
        return AnsweredPartition(
            await self.app.writer(partition, role=REDACT, ended=self._metrics.transaction),
            ConsumedPartition.of(self.app, Topic.TAGGED_DOCUMENTS, partition),
            self.app.positions,
            self._limit,
            self._teller.refused,
            self._delivered,
            self._failed,
        )

    async def drain(self) -> None:
        """Finish what was begun, within ``worker.shutdown_seconds``. What is not comes again, here or elsewhere."""
        try:
            async with asyncio.timeout(self._settings.worker.shutdown_seconds), self._working:
                await self._let_go()
        except TimeoutError:
            log.warning("what is begun is left to the next owner", extra={"stage": REDACT})

    async def _let_go(self) -> None:
        partitions, self._owned = list(self._owned.values()), {}
        await asyncio.gather(*(owned.stop() for owned in partitions))

    async def release(self) -> None:
        """Stop for good. The journal stays if this process ends because of a message."""
        await self._let_go()
        self._journal.close()
        if self._schemas is not None:
            self._schemas.close()


def _gave_up(deaths: int) -> DocumentError:
    return DocumentError(f"{deaths} workers died when they redacted this document alone", code="worker-crash")
