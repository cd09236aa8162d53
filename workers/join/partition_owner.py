"""Taking partitions over and letting them go: a partition's outcomes have one writer, which knows all before its own.

Whoever takes a partition over fences the writer before off, then reads the changelog, and only then any message. There
is no table of Faust's and no recovery of Faust's: its changelog knows no transactions, and a partition that was taken
over has to be fenced before its changelog is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from workers.join.agent import World
from workers.join.changelog import Recovered, read_changelog
from workers.join.join_telemetry import JoinTelemetry
from workers.join.outcome_writer import OutcomeWriter
from workers.join.owned_partition import ConsumedPartition, OwnedPartition, TakenMessage
from workers.join.partition_join import PartitionJoin
from workers.join.rules import JoinRules
from workers.join.write_loop import WriteLoop
from workers.kafka.stage_app import StageApp
from workers.telemetry.metrics import Metrics
from workers.topics import Topic, changelog_name

__all__ = ["PartitionOwner"]

log = logging.getLogger(__name__)

GRACE_MS: Final = 30_000
"""A document that is open for long gets so much more after a restart, for answers that wait in the topics."""


class PartitionOwner:
    """The partitions that this process owns.

    Args:
        write: runs a partition's write loop; what it raises has been seen to.
        consumes: the topic whose offsets are committed in the transactions of outcomes; None: none is.
    """

    def __init__(
        self,
        app: StageApp,
        world: World,
        rules: JoinRules,
        outcomes: OutcomeWriter,
        recorder: JoinTelemetry,
        *,
        write: Callable[[WriteLoop], Awaitable[None]],
        consumes: Topic | None = None,
    ) -> None:
        self._app = app
        self._settings = app.settings
        self._world = world
        self._rules = rules
        self._outcomes = outcomes
        self._recorder = recorder
        self._write = write
        self._consumes = consumes
        self._changelog = changelog_name(app.settings.kafka)
        self._owned: dict[int, OwnedPartition] = {}
        self._changing = asyncio.Lock()

    def get(self, partition: int) -> OwnedPartition | None:
        """A partition, if it is ours."""
        return self._owned.get(partition)

    @property
    def all(self) -> Sequence[OwnedPartition]:
        """Ours."""
        return list(self._owned.values())

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

    def observe(self, metrics: Metrics) -> None:
        """Have what the joins hold read when somebody scrapes."""
        metrics.observe("el4ner_join_open_documents", lambda: self.open_documents)
        metrics.observe("el4ner_join_open_bytes", lambda: self.open_bytes)
        metrics.observe("el4ner_join_oldest_open_seconds", lambda: self.oldest_open_seconds)
        metrics.observe("el4ner_join_remembered_documents", lambda: self.remembered_documents)

    # --- partitions come and go ---

    async def take_over(self) -> None:
        """Own the partitions that were assigned. Nothing is read of them before this returns."""
        async with self._changing:
            await self._let_go()
            partitions = sorted({tp.partition for tp in self._app.consumer.assignment()})
            taken_over = await asyncio.gather(*(self._own(partition) for partition in partitions))
            self._owned = {owned.partition: owned for owned in taken_over}
            for owned in taken_over:
                owned.task = asyncio.ensure_future(self._write(owned.writes))
                owned.writes.wake()
            if self._consumes is not None:
                # Faust has asked before we fenced: what was in a transaction then is committed now, or never will be.
                await self._app.consumer.seek_again()

    async def let_go(self) -> None:
        """Own nothing. What was begun is aborted by the next owner, or by the broker."""
        async with self._changing:
            await self._let_go()

    async def _let_go(self) -> None:
        partitions, self._owned = list(self._owned.values()), {}
        for owned in partitions:
            owned.task.cancel()
            owned.writes.end()
        await asyncio.gather(*(owned.task for owned in partitions), return_exceptions=True)
        await asyncio.gather(*(owned.writer.stop() for owned in partitions))

    async def _own(self, partition: int) -> OwnedPartition:
        settings = self._settings
        writer = await self._app.writer(partition, ended=self._recorder.transaction)
        join: PartitionJoin[TakenMessage] = PartitionJoin(
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
                    "stage": self._app.stage,
                    "partition": partition,
                    "open": join.open_documents,
                    "remembered": join.remembered_documents,
                },
            )
        return OwnedPartition(partition, writer, join, self._outcomes.write_group, self._consumed(partition))

    def _consumed(self, partition: int) -> ConsumedPartition | None:
        if self._consumes is None:
            return None
        return ConsumedPartition.of(self._app, self._consumes, partition)

    def _restore(self, join: PartitionJoin[TakenMessage], recovered: Recovered) -> None:
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
