"""Faust's aiokafka transport, with what it gets wrong set right (faust-streaming 0.15.3).

- Commits come from :class:`~workers.offsets.OffsetTracker` and from nowhere else (there: why).
- After a rebalance Faust goes back to the committed offsets and *then* empties its queues, while it already reads on:
  what was read in between is in no queue, nor will it be read again. Here nothing but changelogs is read from the
  moment that partitions are taken away until the queues were emptied.
- The producer is idempotent: a retry after a lost answer is no second message. Faust switches that on only together
  with its ``exactly_once``, which has open faults (#177, #323, #440, #517).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from faust.transport.drivers import aiokafka as driver

from workers.offsets import OffsetTracker

__all__ = ["Consumer", "Producer", "Transport"]

log = logging.getLogger(__name__)


class Consumer(driver.Consumer):  # type: ignore[misc]
    """A consumer that commits what :attr:`positions` says is finished.

    Before partitions go away it waits for :attr:`drain`, commits, and closes the epoch: what finishes afterwards is not
    committed and will be done again by whoever gets the partition. The app calls :meth:`begin` when it has its
    partitions, its tables and empty queues.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.positions = OffsetTracker(time.monotonic)
        self.drain: Callable[[], Awaitable[None]] | None = None
        self._reading = False
        self._fetches: set[asyncio.Future[Any]] = set()
        super().__init__(*args, **kwargs)

    # --- what is committed ---

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        # What Faust acknowledged on its own is not evidence of anything; here it would only pile up.
        self._acked.clear()
        self._acked_index.clear()
        for topic, partition in self.positions.committable():
            tp = self._new_topicpartition(topic, partition)
            if topics is None or tp in topics or topic in topics:
                yield tp

    def _filter_committable_offsets(self, tps: Iterable[Any]) -> dict[Any, int]:
        committable = self.positions.committable()
        offsets = {}
        for tp in tps:
            offset = committable.get((tp.topic, tp.partition))
            committed = self._committed_offset[tp]
            if offset is not None and (committed is None or offset > committed):
                offsets[tp] = offset
        return offsets

    async def _commit_offsets(self, offsets: Mapping[Any, int], start_new_transaction: bool = True) -> bool:
        # Faust flushes the producer first, for at most some 0.1 s, and notes the offsets even if the broker refused
        # them. What is committed here was delivered before: nothing is left to flush.
        assignment = self.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assignment}
        if not ours or not await self._commit(ours):
            return False
        self._committed_offset.update(ours)
        self.app.monitor.on_tp_commit(ours)
        return True

    # --- what is read ---

    def begin(self) -> None:
        """Read the stream's topics, from where they were committed."""
        self.positions.open(self.app.consumer_generation_id)
        self._reading = True

    async def _getmany(self, active_partitions: set[Any] | None, timeout: float) -> Any:  # noqa: ASYNC109  # Faust's
        if not self._reading:
            changelogs = {tp for tp in active_partitions or () if self._is_changelog_tp(tp)}
            if not changelogs:
                await asyncio.sleep(0.02)
                return {}
            return await super()._getmany(changelogs, timeout)
        fetch = asyncio.ensure_future(super()._getmany(active_partitions, timeout))
        self._fetches.add(fetch)
        try:
            records = await fetch
        finally:
            self._fetches.discard(fetch)
        # Begun before partitions were taken away: what it brings is from before the seek.
        return records if self._reading else {}

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, when no fetch is under way that would move on from them."""
        while self._fetches:
            await asyncio.wait(set(self._fetches))
        await super().perform_seek()

    def _to_message(self, tp: Any, record: Any) -> Any:
        message = super()._to_message(tp, record)
        if not self._is_changelog_tp(tp):
            self.positions.read((tp.topic, tp.partition), message.offset, message.generation_id)
        return message

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Finish what was begun, commit it, and stop counting; then what Faust does."""
        self._reading = False
        self.positions.pause()
        if not self.app.should_stop:
            if self.drain is not None:
                await self.drain()
            await self.commit()
        self.positions.close()
        await super().on_partitions_revoked(revoked)


class Producer(driver.Producer):  # type: ignore[misc]
    """An idempotent producer that waits for all in-sync replicas."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What waits here is bounded by what the workers have in flight. At Faust's bound of 100 the conductor stops
        # every stream and flushes, which halves the aggregator's throughput.
        self.buffer.max_messages = 100_000

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class Transport(driver.Transport):  # type: ignore[misc]
    """What :class:`workers.app.StageApp` uses."""

    Consumer = Consumer
    Producer = Producer


# mode names a service's logger after the module of its class; these messages are Faust's.
Consumer.logger = Producer.logger = logging.getLogger("faust.transport")
