"""Topics from their beginning, and on, as they are followed in no group (kafka-python; blocking)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from workers.config import KafkaSettings
from workers.kafka import broker
from workers.kafka.topic_reader import partitions_of
from workers.topics import Topic, TopicError, topic_name

__all__ = ["FollowedRecords", "followed_records"]


class FollowedRecords:
    """What partitions have, from their beginning, and what comes then."""

    def __init__(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._consumer = consumer
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        self._ends = consumer.end_offsets(partitions)

    @property
    def is_read(self) -> bool:
        """Whether everything is read that was there when this was made."""
        return all(self._consumer.position(partition) >= end for partition, end in self._ends.items())

    def poll(self, milliseconds: int) -> list[Any]:
        """What has come, as kafka-python has it; waits so long for something."""
        polled = self._consumer.poll(timeout_ms=milliseconds)
        return [record for records in polled.values() for record in records]


@contextmanager
def followed_records(
    settings: KafkaSettings, topics: Sequence[Topic], *, client_id: str, fetch_bytes: int
) -> Iterator[FollowedRecords]:
    """What is committed of all of these topics. ``fetch_bytes``: of a partition at once.

    Raises:
        TopicError: no broker, or one of the topics is not there.
        kafka.errors.KafkaError: what the block met. Of a topic that was made anew, or of which records were deleted, it
            is an error of offsets: everything has to be read again.
    """
    consumer = broker.connect(
        settings,
        KafkaConsumer,
        TopicError,
        client_id=client_id,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=fetch_bytes,
    )
    try:
        names = [topic_name(settings, topic) for topic in topics]
        yield FollowedRecords(
            consumer,
            [TopicPartition(name, n) for name in names for n in range(partitions_of(consumer, name, TopicError))],
        )
    finally:
        consumer.close()
