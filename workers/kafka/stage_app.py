"""A Faust app, set up so that it can keep the stream's promises.

What is set here and why is said beside each setting; the transport (:mod:`workers.kafka.transport`) does the rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final

import faust
from aiokafka.errors import KafkaError
from faust.tables import TableManager
from faust.types import TP
from typing_extensions import override

from workers import security
from workers.backoff import Backoff
from workers.config import StreamSettings
from workers.kafka.delivery import NO_LIMITS, RefusedError, deliver, refusal_of, send_all
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.kafka.size_limits import SizeLimits
from workers.kafka.transactions import TransactionalWriter
from workers.kafka.transport import Fetched, StageTransport
from workers.kafka.value_frames import NO_FRAMES, ValueFrames
from workers.messages.envelope import Outgoing, Record
from workers.roles import AGGREGATE
from workers.telemetry.metrics import TransactionOutcome
from workers.topics import Topic, app_id, topic_name

__all__ = ["StageApp"]

log = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS: Final = 30.0


class _NoTables(TableManager):  # type: ignore[misc]
    """Faust waits a second for tables that may yet be declared before a worker joins its group. There are none."""

    @override
    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class StageApp(faust.App):  # type: ignore[misc]
    """The Faust app of one stage.

    Args:
        stage: its name.
        settings: of the stream.
        fatal: called with what crashed the app, at most once and on any thread. Nothing restarts inside.
        group: the name of its consumer group, behind the prefix; None: the stage's.
        limits: how large messages may be on each topic. Without them only the broker refuses a message.
        frames: what values of results begin with.
    """

    def __init__(
        self,
        stage: str,
        settings: StreamSettings,
        *,
        fatal: Callable[[BaseException], None],
        group: str | None = None,
        limits: SizeLimits = NO_LIMITS,
        frames: ValueFrames = NO_FRAMES,
    ) -> None:
        kafka, worker = settings.kafka, settings.worker
        self.stage = stage
        self.group = group or stage
        self.limits = limits
        """What the topics' sizes allow."""
        self.frames = frames
        """What values of results begin with."""
        self.settings = settings
        self.ready = asyncio.Event()
        self.stopping = False
        """Whether the process is on its way down, in order."""
        self._fatal: Callable[[BaseException], None] | None = fatal
        self._topics_by_name = {topic_name(kafka, topic): topic for topic in Topic}
        self.names = {topic: name for name, topic in self._topics_by_name.items()}
        """Our topics' names on the broker."""
        self.prepare: Callable[[], Awaitable[None]] | None = None
        """Awaited when partitions were assigned, before anything is read of them."""
        self.backoff = Backoff(worker.retry_seconds, _LONGEST_WAIT_SECONDS)
        """Between tries of what may pass."""
        self._beginning: asyncio.Task[None] | None = None
        super().__init__(
            app_id(kafka, self.group),
            broker=";".join(f"kafka://{server}" for server in kafka.servers),
            broker_credentials=security.faust_credentials(kafka),
            store="memory://",
            TableManager=_NoTables,
            datadir=worker.data_dir,
            autodiscover=False,
            web_enabled=False,
            # The topics are ours (workers.topics), with settings that Faust would not give them.
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_partitions=kafka.partitions,
            topic_replication_factor=kafka.replication,
            broker_session_timeout=kafka.session_timeout_seconds,
            broker_heartbeat_interval=kafka.session_timeout_seconds / 4,
            broker_request_timeout=max(kafka.request_timeout_seconds, kafka.session_timeout_seconds),
            broker_rebalance_timeout=worker.shutdown_seconds + 30.0,
            # Slow models are no dead worker.
            broker_max_poll_interval=kafka.max_poll_interval_seconds,
            broker_commit_interval=1.0,
            broker_max_poll_records=500,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=2 * kafka.max_message_bytes,
            producer_acks=-1,
            producer_max_request_size=4 * kafka.max_message_bytes,
            producer_request_timeout=kafka.request_timeout_seconds,
            # Backpressure: what is buffered here is no longer in Kafka. An event is what a fetch brought of a
            # partition.
            stream_buffer_maxsize=2,
            stream_processing_timeout=worker.stall_seconds,
            # Our own drain is bounded and knows what is in flight; Faust's waits for acknowledgements that never come.
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
        )

    @override
    def _new_transport(self) -> StageTransport:
        return StageTransport(self.conf.broker_consumer, self)

    @override
    def _new_producer_transport(self) -> StageTransport:
        return StageTransport(self.conf.broker_producer, self)

    @override
    def _crash(self, reason: BaseException) -> None:
        super()._crash(reason)
        self.fail(reason)

    def fail(self, reason: BaseException) -> None:
        """The app cannot go on. From any thread; only the first reason counts."""
        fatal, self._fatal = self._fatal, None
        if fatal is not None:
            fatal(reason)

    @property
    def consumer_loop(self) -> asyncio.AbstractEventLoop:
        """Where the consumer's own tasks run, heartbeats among them: on a thread beside the app's loop."""
        loop: asyncio.AbstractEventLoop = self.consumer._thread.thread_loop
        return loop

    def leave(self) -> Future[None]:
        """Leave the group now, from any thread: see :meth:`workers.kafka.transport.Consumer.leave`."""
        left: Future[None] = self.consumer.leave()
        return left

    @override
    def on_rebalance_end(self) -> None:
        """Partitions are assigned: the last thing that Faust does after a rebalance. Its queues are empty, its consumer
        is at what was committed."""
        super().on_rebalance_end()
        self._beginning = asyncio.get_running_loop().create_task(self._begin(self.consumer_generation_id))

    def _is_leaving(self) -> bool:
        return self.stopping or bool(self.should_stop)

    async def prepared(self) -> None:
        """Wait until nothing is being prepared, within ``worker.shutdown_seconds``.

        Who is still taking partitions over when others get them would fence their rightful owner off.
        """
        if self._beginning is None:
            return
        _, late = await asyncio.wait([self._beginning], timeout=self.settings.worker.shutdown_seconds)
        if late:
            log.warning("partitions are still being taken over, and go", extra={"stage": self.stage})

    async def _begin(self, generation: int) -> None:
        if self._is_leaving():
            # A rebalance that ends while this process drains: what it took now, nobody would wait for, and the next
            # owner of the partition would do it again.
            return
        try:
            if self.prepare is not None:
                await self.prepare()
        except Exception as error:
            if self._is_leaving():
                extra = {"stage": self.stage}
                log.warning("what was being taken over is left to the next owner: %s", error, extra=extra)
            else:
                self.fail(error)
            return
        if generation != self.consumer_generation_id or self.rebalancing or self._is_leaving():
            return  # what was prepared is prepared anew
        self.consumer.begin()
        self.ready.set()
        partitions = sorted(f"{tp.topic}-{tp.partition}" for tp in self.consumer.assignment())
        log.info("%s is ready", self.stage, extra={"stage": self.stage, "partitions": partitions})

    @property
    def positions(self) -> OffsetTracker:
        """What may be committed."""
        positions: OffsetTracker = self.consumer.positions
        return positions

    @property
    def lags(self) -> dict[tuple[str, int], int]:
        """By topic and partition, how many messages are not finished; only where the broker has told the end.

        The end is the last stable offset: nobody can read past an open transaction.
        """
        lags = {}
        for (topic, partition), offset in self.positions.unfinished().items():
            end = self.consumer.highwater(TP(topic, partition))
            if end is not None:
                lags[topic, partition] = max(0, end - offset)
        return lags

    @property
    def lag(self) -> int | None:
        """All of :attr:`lags`; None: not known yet."""
        lags = self.lags
        return sum(lags.values()) if lags else None

    def raw_topic(self, *topics: Topic, **options: Any) -> Any:
        """A Faust topic of bytes: Faust acknowledges what its codecs cannot decode, so decoding is ours."""
        names = [self.names[topic] for topic in topics]
        return self.topic(
            *names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", **options
        )

    def take(self, event: Any) -> Iterator[tuple[Record, Ticket]]:
        """The messages of a Faust event that are to be worked on, each with the ticket that finishes it."""
        fetched, generation = event.message.value, event.message.generation_id
        for record in self.records(fetched):
            ticket = self.ticket(record, generation)
            if ticket is not None:
                yield record, ticket

    def records(self, fetched: Fetched) -> Iterator[Record]:
        """What a fetch brought."""
        for message in fetched.records:
            yield Record(
                topic=self._topics_by_name[message.topic],
                source=message.topic,
                partition=message.partition,
                offset=message.offset,
                timestamp_ms=-1 if message.timestamp is None else message.timestamp,
                key=message.key,
                value=message.value,
                headers=message.headers or (),
            )

    def ticket(self, record: Record, generation: int) -> Ticket | None:
        """The ticket of a message that was fetched in that generation; None: do not work on it."""
        return self.positions.take((record.source, record.partition), record.offset, generation)

    async def writer(
        self, partition: int, *, role: str = AGGREGATE, ended: Callable[[TransactionOutcome, float], None]
    ) -> TransactionalWriter:
        """The one writer of what ``role`` makes of a partition. When this returns, the one before is fenced off.

        ``ended`` is told of transactions, with their seconds.
        """
        made = TransactionalWriter(
            self.settings.kafka,
            self.names,
            partition,
            role=role,
            limits=self.limits,
            frames=self.frames,
            backoff=self.backoff,
            ended=ended,
        )
        await made.start()
        return made

    async def deliver(self, messages: Sequence[Outgoing], *, retried: Callable[[], None] | None = None) -> None:
        """Send the messages and wait until all are delivered. What may pass is tried again.

        Raises:
            RefusedError: a message can never be delivered as it is. Some of the others may be delivered, and later
                ones can be.
            KafkaError, DeliveryError: a message is not delivered, and never will be.
        """
        if not messages:
            return

        def on_retry(error: KafkaError, retry: int) -> None:
            log.warning("a delivery is tried again: %s", error, extra={"stage": self.stage, "retry": retry})
            if retried is not None:
                retried()

        await deliver(lambda: self.send(messages), wait=self.backoff.seconds, on_retry=on_retry)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Send the messages once, and wait until all are delivered."""
        await send_all(self.producer.client, self.names, map(self.frames.framed, messages), self.limits)

    def refusal(self, message: Outgoing) -> RefusedError | None:
        """The error that :meth:`deliver` would raise because of this message's size; None: it fits."""
        return refusal_of(self.names, self.frames.framed(message), self.limits)

    @override
    def _create_directories(self) -> None:
        # Faust's are for tables on disk; there are none, and a full disk is no reason to stand still.
        return


# mode names a service's logger after the module of its class; what these log themselves is Faust's.
StageApp.logger = logging.getLogger("faust.app")
_NoTables.logger = logging.getLogger("faust.tables")
