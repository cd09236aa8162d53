"""``tagged-documents`` as it comes (aiokafka; no consumer group): from its end, never far behind it, and again after a
broker was away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from el4ner.errors import ConfigError, MessageError
from workers import security
from workers.config import KafkaSettings
from workers.messages.result_reading import ResultReading
from workers.registry.registered_schema import RegistryAwayError
from workers.topics import Topic, topic_name
from workers.ui.feed_records import FeedRecord
from workers.ui.live_feed import LiveFeed

__all__ = ["BrokerState", "FollowedTopic"]

log = logging.getLogger(__name__)

_POLL_MS: Final = 200
_PAUSE_SECONDS: Final = 0.05
"""Between two polls: many messages at once cost less than one by one."""
_PROBE_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 5.0
"""A broker that has not answered for so long is lost."""
_AGAIN_SECONDS: Final = 2.0
_MOST_AT_ONCE: Final = 1_000
_MOST_BEHIND: Final = 10_000
"""Messages (and marks of transactions) behind the topic's end: then the page goes on at the end."""


@dataclass(frozen=True, slots=True)
class BrokerState:
    """Whether the topic is followed, since when (seconds, wall clock), and why not, for people."""

    state: Literal["connecting", "following", "lost"]
    since: float
    detail: str = ""


class FollowedTopic:
    """Gives ``feed`` what comes. On one event loop.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, settings: KafkaSettings, feed: LiveFeed, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._feed = feed
        self._clock = clock
        self._name = topic_name(settings, Topic.TAGGED_DOCUMENTS)
        self._results = ResultReading(settings, Topic.TAGGED_DOCUMENTS)
        self._positions: dict[int, int] = {}
        self.broker = BrokerState("connecting", clock())
        self.behind = 0
        """Messages that are there and were not read yet."""

    async def run(self) -> None:
        """Until cancelled."""
        with contextlib.closing(self._results):
            await self._run()

    async def _run(self) -> None:
        while True:
            try:
                async with self._consumer() as (consumer, partitions):
                    await self._follow(consumer, partitions)
            except (KafkaError, OSError, TimeoutError, RegistryAwayError, ConfigError, _NoTopicError) as error:
                self._become("lost", _reason(error, self._settings, self._name))
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                # aiokafka's, who cancels what waits for an answer on a connection that is gone.
                self._become("lost", _reason(ConnectionResetError(), self._settings, self._name))
            await asyncio.sleep(_AGAIN_SECONDS)

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[tuple[Any, list[TopicPartition]]]:
        consumer = AIOKafkaConsumer(
            client_id="el4ner-ui",
            enable_auto_commit=False,
            auto_offset_reset="latest",
            isolation_level="read_committed",
            request_timeout_ms=int(_PATIENCE_SECONDS * 1000),
            bootstrap_servers=self._settings.servers,
            **security.kafka_options(self._settings),
        )
        try:
            async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                await consumer.start()
                # The list of all topics is asked, since asking for one may create it.
                topics = await consumer.topics()
                if self._name not in topics:
                    raise _NoTopicError
                await consumer._client.set_topics([self._name])
                numbers = consumer.partitions_for_topic(self._name) or ()
                partitions = [TopicPartition(self._name, number) for number in sorted(numbers)]
                consumer.assign(partitions)
                await self._seek(consumer, partitions)
            yield consumer, partitions
        finally:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await consumer.stop()

    async def _seek(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Where it was, as far as that is there; else to the end."""
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        found = {}
        for tp in partitions:
            # Of a partition that was added while the topic was followed, all is new.
            position = self._positions.get(tp.partition, begins[tp] if self._positions else None)
            # A topic that was deleted and made again ends before it.
            if position is None or not begins[tp] <= position <= ends[tp]:
                position = ends[tp]
                self._feed.begins_at(tp.partition, position)
            consumer.seek(tp, position)
            found[tp.partition] = position
        self._positions = found

    async def _follow(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._become("following")
        probe = asyncio.create_task(self._probe(consumer, partitions))
        try:
            while not probe.done():
                polled = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST_AT_ONCE)
                now = self._clock()
                values = await self._values(polled)
                for tp, records in polled.items():
                    for record in records:
                        value = values.get((tp.partition, record.offset), record.value)
                        self._feed.take(
                            FeedRecord(tp.partition, record.offset, record.timestamp, record.key, value), now
                        )
                    self._positions[tp.partition] = records[-1].offset + 1
                await asyncio.sleep(_PAUSE_SECONDS)
            await probe  # raises why
        finally:
            probe.cancel()
            with contextlib.suppress(asyncio.CancelledError, KafkaError, OSError, TimeoutError):
                await probe

    async def _values(self, polled: Mapping[TopicPartition, Sequence[Any]]) -> dict[tuple[int, int], bytes]:
        """As :meth:`_plain`, which may wait for a registry. If it is away, all that was polled is read again."""
        if not any(self._results.needs_schema(record.value) for records in polled.values() for record in records):
            return {}
        try:
            return await asyncio.to_thread(self._plain, polled)
        except (RegistryAwayError, ConfigError):
            # The probe has noted meanwhile where the consumer is, which is behind these.
            self._positions |= {tp.partition: records[0].offset for tp, records in polled.items() if records}
            raise

    def _plain(self, polled: Mapping[TopicPartition, Sequence[Any]]) -> dict[tuple[int, int], bytes]:
        """The values that need a registry's schema, as plain JSON, by their places; without those that are not as it
        says."""
        values = {}
        for tp, records in polled.items():
            for record in records:
                if self._results.needs_schema(record.value):
                    with contextlib.suppress(MessageError):
                        values[tp.partition, record.offset] = self._results.json(record.value)
        return values

    async def _probe(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Ask for the end again and again: a consumer alone does not say that its broker is gone, or it is behind.
        Returns when the topic has got more partitions, which have to be assigned."""
        while len(consumer.partitions_for_topic(self._name) or ()) <= len(partitions):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                ends = await consumer.end_offsets(partitions)
                for tp in partitions:
                    self._positions[tp.partition] = await consumer.position(tp)
            self.behind = sum(max(0, ends[tp] - self._positions[tp.partition]) for tp in partitions)
            if self.behind > _MOST_BEHIND:
                self._feed.skipped += self.behind
                for tp in partitions:
                    consumer.seek(tp, ends[tp])
                    self._feed.begins_at(tp.partition, ends[tp])
                    self._positions[tp.partition] = ends[tp]
                log.warning("the page is behind and goes on at the end", extra={"skipped": self.behind})
                self.behind = 0
            await asyncio.sleep(_PROBE_SECONDS)

    def _become(self, state: Literal["connecting", "following", "lost"], detail: str = "") -> None:
        if (state, detail) == (self.broker.state, self.broker.detail):
            return
        since = self.broker.since if state == self.broker.state else self._clock()
        if state == "lost" and self.broker.state != "lost":
            log.warning("the broker is lost", extra={"reason": detail})
        elif state == "following":
            log.info("following", extra={"topic": self._name})
        self.broker = BrokerState(state, since, detail)


class _NoTopicError(Exception):
    pass


def _reason(error: BaseException, settings: KafkaSettings, name: str) -> str:
    if isinstance(error, _NoTopicError):
        return f"topic {name!r} does not exist: create the topics with `el4ner topics create`"
    if isinstance(error, RegistryAwayError | ConfigError):
        return f"the schema registry cannot be asked about a message of {name!r}: {error}; trying again"
    why = "" if isinstance(error, TimeoutError) else f" ({type(error).__name__})"
    return f"no answer from Kafka at {settings.bootstrap_servers}{why}; trying again"
