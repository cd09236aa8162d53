"""Faust's aiokafka transport, with what it gets wrong set right (faust-streaming 0.15.3).

- Commits come from :class:`~workers.kafka.offsets.OffsetTracker` and from nowhere else (there: why).
- After a rebalance Faust goes back to the committed offsets and *then* empties its queues, while it already reads on:
  what was read in between is in no queue, nor will it be read again. Here nothing is read from the moment that
  partitions are taken away until the app says so (:meth:`Consumer.begin`).
- Faust hands every message through its conductor, streams and sensors one by one, some 200 µs each. Here one event is
  all that a fetch brought of a partition (:class:`Fetched`), so that is paid once for hundreds of messages.
- Faust reads what is not committed, unless it runs in its ``exactly_once``. Here documents that a producer writes in a
  transaction are read when it is committed, and those of one that is aborted never; the end of a partition is its last
  stable offset.
- The producer is idempotent: a retry after a lost answer is no second message. Faust switches that on only together
  with its ``exactly_once``, which has open faults (#177, #323, #440, #517).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage
from typing_extensions import override

from workers.kafka.delivery import MAX_BATCH_BYTES, REFUSALS
from workers.kafka.leaving import LeavingThread
from workers.kafka.offsets import OffsetTracker

__all__ = ["Consumer", "Fetched", "Producer", "StageTransport", "number_anew_after_refusals", "outlast_outages"]

log = logging.getLogger(__name__)

_FETCH_MS: Final = 500
"""How long a broker may wait for messages when there are none. Kafka's own default."""
_DELIVERY_SECONDS: Final = 120.0
_COMMITS: Final = 3
"""The commit that was on its way, ours, and one more for what a broker refused."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought of one partition: aiokafka's records, oldest first.

    It went from offset ``begin`` up to ``end`` (not included). Between them there may be more offsets than records, and
    even no record at all: marks of transactions, and what was aborted.
    """

    records: tuple[Any, ...]
    begin: int
    end: int

    @property
    def offset(self) -> int:
        """Of the last record."""
        return int(self.records[-1].offset)


class ConsumerThread(LeavingThread):
    """Faust's consumer thread, but it reads what is committed, and partitions are assigned by range.

    By range, the process that gets a partition number of one topic gets that number of all topics. Faust would deal
    partitions round, topic after topic, to an app without tables: two processes would then own one partition of the
    join.
    """

    @override
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._partition_assignment_strategy = (RangePartitionAssignor,)
        consumer._isolation_level = "read_committed"
        # A new position waits for the fetch that is under way, so every start and rebalance would wait as long as Faust
        # lets the broker wait for messages: 1.5 s.
        consumer._fetch_max_wait_ms = _FETCH_MS
        return consumer

    @override
    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: set[Any],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[Any, Fetched]:
        """What a fetch brought, by partition; partitions that it has moved on without a record are among them."""
        begins = _positions(consumer, active_partitions)
        brought = await super()._fetch_records(consumer, active_partitions, timeout=timeout, max_records=max_records)
        ends = _positions(consumer, active_partitions)
        fetched = {}
        for tp, end in ends.items():
            records = tuple(brought.get(tp, ()))
            begin = begins.get(tp)
            if begin is None:
                # Where the partition is read from was found out meanwhile.
                begin = records[0].offset if records else end
            if records or end > begin:
                fetched[tp] = Fetched(records, begin, end)
        return fetched

    @override
    def highwater(self, tp: Any) -> Any:
        """The last stable offset: up to there a partition can be read now. None: the broker has not told it yet."""
        return self._ensure_consumer().last_stable_offset(tp)

    @override
    async def _highwaters(self, partitions: Any) -> Any:
        # Of a consumer that reads what is committed these are the last stable offsets.
        return await self._ensure_consumer().end_offsets(partitions)

    @override
    def verify_event_path(self, now: float, tp: Any) -> None:
        """Faust complains about partitions that are not read to their end. What lies behind an open transaction cannot
        be read by anybody yet."""
        consumer = self._ensure_consumer()
        end, position = consumer.last_stable_offset(tp), _positions(consumer, {tp}).get(tp)
        if end is not None and position is not None and position < end:
            super().verify_event_path(now, tp)


class Consumer(driver.Consumer):  # type: ignore[misc]
    """A consumer that commits what :attr:`positions` says is finished.

    Before partitions go away it waits for :attr:`drain`, commits, and closes the epoch. What finishes afterwards is not
    committed: the next owner of the partition does it again. The app calls :meth:`begin` when it has its partitions,
    its state and empty queues. Topics in :attr:`paused` are not read for the time being. Where :attr:`commits` is
    False it commits nothing: the app commits in its transactions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.positions = OffsetTracker(time.monotonic)
        self.drain: Callable[[], Awaitable[None]] | None = None
        self.paused: frozenset[str] = frozenset()
        self.commits = True
        self._reading = False
        self._has_left = False
        self._fetches: set[asyncio.Future[Any]] = set()
        super().__init__(*args, **kwargs)

    @override
    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- what is committed ---

    @override
    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        # What Faust acknowledged on its own is not evidence of anything; here it would only pile up.
        self._acked.clear()
        self._acked_index.clear()
        if not self.commits:
            return
        for topic, partition in self.positions.committable():
            tp = self._new_topicpartition(topic, partition)
            if topics is None or tp in topics or topic in topics:
                yield tp

    @override
    def _filter_committable_offsets(self, tps: Iterable[Any]) -> dict[Any, int]:
        committable = self.positions.committable()
        offsets = {}
        for tp in tps:
            offset = committable.get((tp.topic, tp.partition))
            committed = self._committed_offset[tp]
            if offset is not None and (committed is None or offset > committed):
                offsets[tp] = offset
        return offsets

    @override
    async def _commit_offsets(self, offsets: Mapping[Any, int], start_new_transaction: bool = True) -> bool:
        # Faust flushes the producer first, for at most some 0.1 s, and notes the offsets even if the broker refused
        # them. What is committed here was delivered before: nothing is left to flush.
        assignment = self.assignment()
        ours = {tp: offset for tp, offset in offsets.items() if tp in assignment}
        if not ours or self._has_left or not await self._commit(ours):
            return False
        self._committed_offset.update(ours)
        self.app.monitor.on_tp_commit(ours)
        return True

    async def commit_all(self) -> None:
        """Commit all that is finished. Faust's ``commit`` only waits if another one is on its way."""
        for _ in range(_COMMITS):
            if not self._filter_committable_offsets(self._filter_tps_with_pending_acks()):
                return
            await self.commit()

    def leave(self) -> Future[None]:
        """Leave the group now, with messages unfinished: nothing more is committed, and the partitions go to others.

        From any thread. The future is done when the broker was told, or could not be reached.
        """
        self._has_left = True
        thread: ConsumerThread = self._thread
        return thread.leave()

    # --- what is read ---

    def begin(self) -> None:
        """Read the stream's topics, from where they were committed."""
        self.positions.open(self.app.consumer_generation_id)
        self._reading = True

    @override
    async def _getmany(self, active_partitions: set[Any] | None, timeout: float) -> Any:
        wanted = {tp for tp in active_partitions or () if tp.topic not in self.paused}
        if not self._reading or not wanted:
            await asyncio.sleep(0.02)
            return {}
        fetch = asyncio.ensure_future(super()._getmany(wanted, timeout))
        self._fetches.add(fetch)
        try:
            fetched_by: Mapping[Any, Fetched] = await fetch
        finally:
            self._fetches.discard(fetch)
        # Begun before partitions were taken away: what it brings is from before the seek.
        brought = fetched_by if self._reading else {}
        for tp, fetched in brought.items():
            if not fetched.records:
                self._moved(tp, fetched)
        return {tp: [fetched] for tp, fetched in brought.items() if fetched.records}

    def _moved(self, tp: Any, fetched: Fetched) -> None:
        generation = self.app.consumer_generation_id
        self.positions.moved((tp.topic, tp.partition), fetched.begin, fetched.end, generation)

    @override
    async def perform_seek(self) -> None:
        """Go back to the committed offsets, when no fetch is under way that would move on from them."""
        while self._fetches:
            await asyncio.wait(set(self._fetches))
        await super().perform_seek()
        # Where nothing was ever committed there is nothing to go back to, and aiokafka stays where a fetch has left it.
        fresh = [tp for tp, offset in self._read_offset.items() if not offset]
        if fresh and (fresh := [tp for tp in fresh if tp in self.assignment()]):
            await self._thread.seek_to_beginning(*map(driver.ensure_aiokafka_TP, fresh))

    async def seek_again(self) -> None:
        """Go back to what is committed by now, before :meth:`begin`.

        A process that stands by has nothing to go back to, nor has one whose partitions are taken away meanwhile: what
        it gets then is prepared anew.
        """
        assigned = set(self.assignment())
        if not assigned:
            return
        try:
            await self.perform_seek()
        except (AssertionError, IllegalStateError):
            # aiokafka's words for partitions that are not assigned.
            if self.assignment() == assigned:
                raise

    @override
    def _to_message(self, tp: Any, fetched: Fetched) -> Any:
        generation = self.app.consumer_generation_id
        for record in fetched.records:
            self.positions.read((tp.topic, tp.partition), record.offset, generation)
        self._moved(tp, fetched)
        first = fetched.records[0]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            fetched.offset,
            first.timestamp / 1000.0 if first.timestamp is not None else None,
            first.timestamp_type,
            (),
            None,
            fetched,
            None,
            tp=tp,
            generation_id=generation,
        )

    @override
    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        # Faust's own bookkeeping; an event here stands for all offsets since the one before.
        return

    @override
    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Finish what was begun, commit it, and close the epoch; then what Faust does."""
        self._reading = False
        self.positions.pause()
        if not self.app.should_stop and not self._has_left:
            await self.app.prepared()
            if self.drain is not None:
                await self.drain()
            await self.commit_all()
        self.positions.close()
        await super().on_partitions_revoked(revoked)


class Producer(driver.Producer):  # type: ignore[misc]
    """An idempotent producer that waits for all in-sync replicas. Batches are ours (:mod:`workers.kafka.delivery`)."""

    @override
    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True, "max_batch_size": MAX_BATCH_BYTES, "linger_ms": 0}

    @override
    def _new_producer(self, transactional_id: str | None = None) -> Any:
        return number_anew_after_refusals(outlast_outages(super()._new_producer(transactional_id)))

    @property
    def client(self) -> Any:
        """aiokafka's producer, started."""
        return self._ensure_producer()


class StageTransport(driver.Transport):  # type: ignore[misc]
    """What :class:`workers.kafka.stage_app.StageApp` uses."""

    Consumer = Consumer
    Producer = Producer


def _positions(consumer: Any, partitions: Iterable[Any]) -> dict[Any, int]:
    """Where an aiokafka consumer reads next, of those partitions where it knows."""
    subscription = consumer._fetcher._subscriptions.subscription
    assignment = None if subscription is None else subscription.assignment
    if assignment is None:
        return {}
    positions = {}
    for tp in partitions:
        place = driver.ensure_aiokafka_TP(tp)
        if place in assignment.tps and (state := assignment.state_value(place)).has_valid_position:
            positions[tp] = state.position
    return positions


def outlast_outages(producer: Any) -> Any:
    """The aiokafka producer, with a longer life for batches than for requests.

    aiokafka has one time-out for both, so a request that was lost leaves no time to send its batch again; other clients
    call the second one ``delivery.timeout.ms`` (two minutes).
    """
    producer._message_accumulator._batch_ttl = max(_DELIVERY_SECONDS, producer._message_accumulator._batch_ttl)
    return producer


def number_anew_after_refusals(producer: Any) -> Any:
    """The aiokafka producer, which gives the sequence numbers of a refused batch to the next batch.

    Brokers expect an idempotent producer's batches to be numbered without a gap, and do not count a batch that they
    refused. aiokafka (0.14) goes on counting, after which they take nothing more from it for that partition
    (``OutOfOrderSequenceNumber``). A partition has one batch on its way at a time, and the next one has no number yet
    when the refusal comes in. Only refusals count that come before anything is written (:data:`REFUSALS`).
    """
    accumulator, numbers = producer._message_accumulator, producer._txn_manager
    pop = accumulator._pop_batch

    def popped(tp: Any) -> Any:
        batch = pop(tp)
        if numbers is None or batch.retry_count > 1:
            return batch  # not numbered now
        fail = batch.failure

        def failure(exception: BaseException) -> None:
            if isinstance(exception, REFUSALS):
                numbers.increment_sequence_number(tp, -batch.record_count)
            fail(exception)

        batch.failure = failure
        return batch

    accumulator._pop_batch = popped
    return producer


# mode names a service's logger after the module of its class; these messages are Faust's.
Consumer.logger = ConsumerThread.logger = Producer.logger = logging.getLogger("faust.transport")
