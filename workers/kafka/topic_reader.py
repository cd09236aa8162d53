"""Reading a topic as it is now, from outside any consumer group (kafka-python; for programs and the command line)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from workers.config import KafkaSettings
from workers.kafka import broker

__all__ = ["partitions_of", "reading", "records_between"]

_POLL_MS: Final = 200


@contextmanager
def reading(
    settings: KafkaSettings, name: str, failure: type[El4nerError], *, client_id: str
) -> Iterator[tuple[Any, list[Any]]]:
    """A consumer of what is committed, and the topic's partitions in order; nothing is assigned yet.

    Raises:
        El4nerError: of the kind ``failure``: no broker, no topic, or what the block met of Kafka's errors.
    """
    consumer = broker.connect(
        settings,
        KafkaConsumer,
        failure,
        client_id=client_id,
        group_id=None,
        enable_auto_commit=False,
        # Outcomes are written in transactions; an aborted transaction leaves records behind that are no outcomes.
        isolation_level="read_committed",
        max_partition_fetch_bytes=2 * settings.max_message_bytes,
    )
    try:
        count = partitions_of(consumer, name, failure)
        yield consumer, [TopicPartition(name, number) for number in range(count)]
    except KafkaError as error:
        raise failure(f"reading {name} from {settings.bootstrap_servers} failed: {error}") from error
    finally:
        consumer.close()


def partitions_of(consumer: Any, name: str, failure: type[El4nerError]) -> int:
    """How many partitions a topic has. The list of all topics is asked, since asking for one may create it.

    Raises:
        El4nerError: of the kind ``failure``: there is no such topic.
    """
    if name not in consumer.topics():
        raise failure(f"topic {name!r} does not exist\ncreate the topics with: el4ner topics create")
    return len(consumer.partitions_for_topic(name) or ())


def records_between(
    settings: KafkaSettings,
    consumer: Any,
    begins: Mapping[Any, int],
    ends: Mapping[Any, int],
    failure: type[El4nerError],
) -> Iterator[Any]:
    """The records from ``begins`` (included) to ``ends`` (not included), in the order of each partition.

    Raises:
        El4nerError: of the kind ``failure``: the broker does not answer any more.
    """
    left = {tp for tp in begins if begins[tp] < ends[tp]}
    consumer.assign(sorted(left))
    if left:
        consumer.resume(*left)  # it may have been read to its end before, by the same consumer
    for tp in left:
        consumer.seek(tp, begins[tp])
    patience = settings.request_timeout_seconds
    moved = time.monotonic()
    while left:
        polled = consumer.poll(timeout_ms=_POLL_MS)
        for records in polled.values():
            for record in records:
                if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                    yield record
        # A partition may end with what is no message: the marks of transactions.
        reached = {tp for tp in left if consumer.position(tp) >= ends[tp]}
        if reached:
            left -= reached
            consumer.pause(*reached)
        if polled or reached:
            moved = time.monotonic()
        elif time.monotonic() - moved > patience:
            raise failure(f"the broker at {settings.bootstrap_servers} has not answered for {patience:g} s")
