"""The topic ``pool-examples`` from outside a worker: what is in force now, and teaching more (kafka-python)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from kafka.errors import KafkaError

from el4ner.errors import El4nerError, MessageError
from el4ner.pools.examples import PoolExample
from workers.config import KafkaSettings
from workers.kafka.topic_reader import reading, records_between
from workers.kafka.topic_sender import Confirmations, sending
from workers.messages.headers import RandomBytes
from workers.messages.pool_examples import ExampleKey, example_message, read_example
from workers.topics import MOST_EXAMPLE_BYTES, Topic, topic_name

__all__ = ["ExampleMessage", "TeachingError", "messages_until_now", "send_examples", "taught_to", "taught_until_now"]

_IN_FLIGHT: Final = 1_000
_HEADERS_BYTES: Final = 64 * 1024


class TeachingError(El4nerError):
    """The broker cannot be reached, the topic is not there, or an example was not delivered."""

    code = "teaching"


@dataclass(frozen=True, slots=True)
class ExampleMessage:
    """A message of the topic. ``example`` None: it is withdrawn. ``timestamp_ms`` -1: it has none."""

    key: ExampleKey
    example: PoolExample | None
    timestamp_ms: int


def taught_until_now(
    settings: KafkaSettings, *, unreadable: Callable[[str, MessageError], None] = lambda place, error: None
) -> dict[ExampleKey, PoolExample]:
    """The examples that are in force when this is called, each where it was taught last.

    A message that is no example is passed over, and ``unreadable`` gets its place (``topic-partition@offset``).

    Raises:
        TeachingError: no broker, or no topic.
    """
    in_force: dict[ExampleKey, PoolExample] = {}
    for message in messages_until_now(settings, unreadable=unreadable):
        in_force.pop(message.key, None)
        if message.example is not None:
            in_force[message.key] = message.example
    return in_force


def taught_to(
    settings: KafkaSettings, pool: str, *, unreadable: Callable[[str, MessageError], None] = lambda place, error: None
) -> list[PoolExample]:
    """The examples of one pool: as :func:`taught_until_now`, in the order in which they were taught last.

    Raises:
        TeachingError: no broker, or no topic.
    """
    in_force = taught_until_now(settings, unreadable=unreadable)
    return [example for key, example in in_force.items() if key.pool == pool]


def messages_until_now(
    settings: KafkaSettings, *, unreadable: Callable[[str, MessageError], None] = lambda place, error: None
) -> Iterator[ExampleMessage]:
    """What the topic still has of all that was taught and withdrawn, in the order in which it was written.
    ``unreadable``: as of :func:`taught_until_now`.

    Raises:
        TeachingError: no broker, or no topic.
    """
    name = topic_name(settings, Topic.POOL_EXAMPLES)
    with reading(settings, name, TeachingError, client_id="el4ner-teaching") as (consumer, partitions):
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        for record in records_between(settings, consumer, begins, ends, TeachingError):
            try:
                key, example = read_example(record.key, record.value)
            except MessageError as error:
                unreadable(f"{name}-{record.partition}@{record.offset}", error)
                continue
            yield ExampleMessage(key, example, record.timestamp)


def send_examples(
    settings: KafkaSettings,
    examples: Iterable[tuple[ExampleKey, PoolExample | None]],
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    random: RandomBytes = os.urandom,
) -> int:
    """Teach these examples, in order, and withdraw those that are None. Returns how many the broker has confirmed: all.

    Raises:
        TeachingError: no broker, or an example that it did not take; those before it are taught.
    """
    name = topic_name(settings, Topic.POOL_EXAMPLES)
    confirmed: Confirmations[ExampleKey] = Confirmations(
        settings,
        most=_IN_FLIGHT,
        delivered=lambda key, sent: None,
        failed=lambda key, error: TeachingError(f"example {key} was not delivered to {name}: {error}"),
    )
    size = MOST_EXAMPLE_BYTES + _HEADERS_BYTES
    with sending(settings, TeachingError, client_id="el4ner-teaching", max_request_size=size) as producer:
        try:
            for key, example in examples:
                message = example_message(key, example, now_ms=now_ms(), random=random)
                try:
                    future = producer.send(name, key=message.key, value=message.value, headers=list(message.headers))
                except KafkaError as error:
                    raise TeachingError(f"example {key} cannot be sent to {name}: {error}") from error
                confirmed.add(key, future)
            confirmed.finish(producer)
        except BaseException:
            confirmed.drain(producer, lambda key: None)
            raise
    return confirmed.count
