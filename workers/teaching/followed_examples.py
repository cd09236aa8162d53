"""The topic ``pool-examples`` for who follows it: from its beginning, and on (kafka-python)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from workers.config import KafkaSettings
from workers.kafka import broker
from workers.kafka.topic_reader import partitions_of
from workers.teaching.taught_examples import ExampleRecord
from workers.topics import MOST_EXAMPLE_BYTES, Topic, TopicError, topic_name

__all__ = ["FollowedExamples", "followed_examples"]

_CLIENT: Final = "el4ner-teaching"


class FollowedExamples:
    """The topic from its beginning, and on: in no group, since every process reads all of it."""

    def __init__(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._consumer = consumer
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        self._ends = consumer.end_offsets(partitions)

    @property
    def is_read(self) -> bool:
        """Whether everything is read that was there when this was made."""
        return all(self._consumer.position(partition) >= end for partition, end in self._ends.items())

    def poll(self, milliseconds: int) -> list[ExampleRecord]:
        """What has come; waits so long for something."""
        polled = self._consumer.poll(timeout_ms=milliseconds)
        return [_record(record) for records in polled.values() for record in records]


@contextmanager
def followed_examples(settings: KafkaSettings) -> Iterator[FollowedExamples]:
    """
    Raises:
        TopicError: no broker, or no topic.
        kafka.errors.KafkaError: what the block met. Of a topic that was made anew, or of which records were deleted, it
            is an error of offsets: everything has to be read again.
    """
    consumer = broker.connect(
        settings,
        KafkaConsumer,
        TopicError,
        client_id=_CLIENT,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * MOST_EXAMPLE_BYTES,
    )
    try:
        name = topic_name(settings, Topic.POOL_EXAMPLES)
        count = partitions_of(consumer, name, TopicError)
        yield FollowedExamples(consumer, [TopicPartition(name, number) for number in range(count)])
    finally:
        consumer.close()


def _record(record: Any) -> ExampleRecord:
    return ExampleRecord(record.key, record.value, record.partition, record.offset, record.timestamp)
