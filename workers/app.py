"""A Faust app, set up so that it can keep the stream's promises.

What is set here and why is said beside each setting; the transport (:mod:`workers.transport`) does the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faust

from workers.config import StreamSettings
from workers.messages import Outgoing, Record
from workers.offsets import OffsetTracker, Ticket
from workers.topics import Topic, app_id, topic_name
from workers.transport import Transport

__all__ = ["StageApp"]

log = logging.getLogger(__name__)


class StageApp(faust.App):  # type: ignore[misc]
    """The Faust app of one stage.

    ``fatal`` is called, on the loop's thread and at most once, with what crashed the app; nothing restarts inside.
    """

    def __init__(self, stage: str, settings: StreamSettings, *, data_dir: Path, fatal: Callable[[BaseException], None]):
        kafka, worker = settings.kafka, settings.worker
        data_dir.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        self.settings = settings
        self.ready = asyncio.Event()
        self._fatal: Callable[[BaseException], None] | None = fatal
        self._loop_of_fatal = asyncio.get_running_loop()
        self._own_dir = data_dir
        self._topics_by_name = {topic_name(kafka, topic): topic for topic in Topic}
        self._names = {topic: name for name, topic in self._topics_by_name.items()}
        super().__init__(
            app_id(kafka, stage),
            broker=";".join(f"kafka://{server}" for server in kafka.servers),
            store=worker.table_store,
            datadir=data_dir,
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
            # The biggest single win for throughput (kafka-notes): 2.4k to 3.4k messages a second.
            producer_linger=0.02,
            producer_max_request_size=2 * kafka.max_message_bytes,
            producer_request_timeout=kafka.request_timeout_seconds,
            # Backpressure: what is buffered here is no longer in Kafka.
            stream_buffer_maxsize=max(64, 4 * worker.batch_documents),
            stream_processing_timeout=worker.stall_seconds,
            # Our own drain is bounded and knows what is in flight; Faust's waits for acknowledgements that never come.
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            table_cleanup_interval=3600.0,
        )

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Transport:
        return Transport(self.conf.broker_producer, self)

    def _crash(self, reason: BaseException) -> None:
        super()._crash(reason)
        self.fail(reason)

    def fail(self, reason: BaseException) -> None:
        """The app cannot go on. From any thread; only the first reason counts."""
        fatal, self._fatal = self._fatal, None
        if fatal is not None:
            self._loop_of_fatal.call_soon_threadsafe(fatal, reason)

    def on_rebalance_end(self) -> None:
        """Partitions are assigned and tables recovered."""
        super().on_rebalance_end()
        # The last thing that Faust does after a rebalance: its queues are empty, its consumer is at what was committed.
        self.consumer.begin()
        if not self.ready.is_set():
            self.ready.set()
        log.info(
            "%s is ready",
            self.stage,
            extra={
                "stage": self.stage,
                "partitions": sorted(f"{tp.topic}-{tp.partition}" for tp in self.consumer.assignment()),
            },
        )

    @property
    def positions(self) -> OffsetTracker:
        """What may be committed."""
        positions: OffsetTracker = self.consumer.positions
        return positions

    def raw_topic(self, *topics: Topic, **options: Any) -> Any:
        """A Faust topic of bytes: Faust acknowledges what its codecs cannot decode, so decoding is ours."""
        names = [self._names[topic] for topic in topics]
        return self.topic(
            *names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", **options
        )

    def take(self, event: Any) -> tuple[Record, Ticket] | None:
        """The message of a Faust event and the ticket to finish it with; None: leave it alone."""
        message = event.message
        ticket = self.positions.take((message.topic, message.partition), message.offset, message.generation_id)
        if ticket is None:
            return None
        record = Record(
            topic=self._topics_by_name[message.topic],
            source=message.topic,
            partition=message.partition,
            offset=message.offset,
            timestamp_ms=-1 if message.timestamp is None else int(message.timestamp * 1000),
            key=message.key,
            value=message.value,
            headers=tuple((name, value or b"") for name, value in message.headers or ()),
        )
        return record, ticket

    async def send(self, message: Outgoing) -> asyncio.Future[Any]:
        """Hand a message to the producer; await what is returned to know that it is delivered."""
        delivery: asyncio.Future[Any] = await self.producer.send(
            self._names[message.topic],
            message.key,
            message.value,
            message.partition,
            None,
            list(message.headers),
        )
        return delivery

    async def deliver(self, messages: Sequence[Outgoing]) -> list[Any]:
        """Send and wait until every one is delivered; their record metadata. Raises if one is not."""
        deliveries = [await self.send(message) for message in messages]
        return list(await asyncio.gather(*deliveries))

    def remove_data(self) -> None:
        """Remove the process's own folder; nothing in it outlives the process."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._own_dir)


# mode names a service's logger after the module of its class; what it logs itself is Faust's.
StageApp.logger = logging.getLogger("faust.app")
