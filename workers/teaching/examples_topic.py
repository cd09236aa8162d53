"""The topic ``pool-examples`` on the broker: reading all of it, following it, writing to it (kafka-python)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from workers.config import KafkaSettings
from workers.kafka import broker
from workers.kafka.topic_reader import partitions_of, reading, records_between
from workers.kafka.topic_sender import sending
from workers.messages.envelope import Outgoing
from workers.teaching.taught_examples import ExampleRecord
from workers.topics import MOST_EXAMPLE_BYTES, Topic, TopicError, topic_name

__all__ = ["FollowedExamples", "followed_examples", "read_examples", "write_examples"]

_CLIENT: Final = "el4ner-teaching"


def read_examples(settings: KafkaSettings) -> Iterator[ExampleRecord]:
    """Every message that the topic has now, in the order of each partition.

    Raises:
        TopicError: no broker, or no topic.
    """
    with reading(settings, topic_name(settings, Topic.POOL_EXAMPLES), TopicError, client_id=_CLIENT) as (
        consumer,
        partitions,
    ):
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        for record in records_between(settings, consumer, begins, ends, TopicError):
            yield _record(record)


def write_examples(settings: KafkaSettings, messages: Sequence[Outgoing]) -> None:
    """Write messages, and wait until the brokers have them.

    Raises:
        TopicError: no broker, no topic, or it takes one of them not.
    """
    name = topic_name(settings, Topic.POOL_EXAMPLES)
    with sending(settings, TopicError, client_id=_CLIENT, max_request_size=2 * MOST_EXAMPLE_BYTES) as producer:
        futures = [
            producer.send(name, key=message.key, value=message.value, headers=list(message.headers))
            for message in messages
        ]
        producer.flush(timeout=settings.request_timeout_seconds)
        for future in futures:
            future.get(timeout=settings.request_timeout_seconds)


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
