"""Messages to Kafka in batches of our own, each with its delivery awaited.

A message at a time costs a client in Python some 50 µs (a future, a metadata look-up, a lock); a batch that is built
here costs that once. Per topic and partition messages keep their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka.errors import KafkaError, KafkaTimeoutError
from aiokafka.partitioner import murmur2

from el4ner.errors import El4nerError
from workers.messages import Outgoing
from workers.topics import Topic

__all__ = ["MAX_BATCH_BYTES", "DeliveryError", "deliver", "is_transient", "partition_of", "send_all"]

MAX_BATCH_BYTES: Final = 512 * 1024
"""A batch counts as one message where brokers limit its size (1 MB by default); a single larger message goes alone."""


class DeliveryError(El4nerError):
    """A message was not delivered; the text names its topic."""

    code = "delivery"


async def send_all(producer: Any, names: Mapping[Topic, str], messages: Iterable[Outgoing]) -> None:
    """Send every message and wait until all are delivered.

    ``producer``: a started ``AIOKafkaProducer`` (in a transaction, if it has one).

    Raises:
        KafkaError: the first that came; other messages may be delivered or not.
        DeliveryError: a message can never be delivered: it is too large, or its topic is gone.
    """
    by_place: dict[tuple[str, int], list[Outgoing]] = {}
    for message in messages:
        name = names[message.topic] if isinstance(message.topic, Topic) else message.topic
        partition = message.partition
        if partition is None:
            partition = partition_of(message, len(await _partitions(producer, name)))
        by_place.setdefault((name, partition), []).append(message)
    if by_place:
        # One partition's batches one after another, as the client sends them; partitions beside each other.
        done = await asyncio.gather(
            *(_send(producer, name, partition, own) for (name, partition), own in by_place.items()),
            return_exceptions=True,
        )
        for result in done:
            if isinstance(result, BaseException):
                raise result


async def deliver(
    send: Callable[[], Any], *, wait: Callable[[int], float], on_retry: Callable[[KafkaError, int], None]
) -> None:
    """Call ``send()`` until it passes: what may pass by itself is tried again after ``wait(n)`` seconds.

    Raises:
        KafkaError, DeliveryError: of another kind.
    """
    retry = 0
    while True:
        try:
            await send()
        except KafkaError as error:
            if not is_transient(error):
                raise
            retry += 1
            on_retry(error, retry)
            await asyncio.sleep(wait(retry))
        else:
            return


def is_transient(error: BaseException) -> bool:
    """Whether the same call may pass later: no broker, no leader, too few replicas, too slow."""
    # The client's own time-out, for a batch that it could not send for two minutes, is not marked as what it is.
    return isinstance(error, KafkaTimeoutError) or (isinstance(error, KafkaError) and bool(error.retriable))


def partition_of(message: Outgoing, partitions: int) -> int:
    """By the key, as every Kafka client does it (murmur2); a message without one by its value."""
    source = message.key if message.key is not None else message.value or b""
    return int(murmur2(source) & 0x7FFFFFFF) % partitions


async def _partitions(producer: Any, name: str) -> Sequence[int]:
    found = await producer.partitions_for(name)
    if not found:
        raise DeliveryError(f"topic {name!r} is gone: el4ner topics create")
    return list(found)


async def _send(producer: Any, name: str, partition: int, messages: Sequence[Outgoing]) -> None:
    deliveries = []
    batch = producer.create_batch()
    for message in messages:
        if not _append(batch, message):
            deliveries.append(await _submit(producer, batch, name, partition))
            batch = producer.create_batch()
            if not _append(batch, message):
                raise DeliveryError(f"a message of {len(message.value or b'')} bytes fits in no batch for {name!r}")
    deliveries.append(await _submit(producer, batch, name, partition))
    await asyncio.gather(*deliveries)


def _append(batch: Any, message: Outgoing) -> bool:
    appended = batch.append(timestamp=None, key=message.key, value=message.value, headers=list(message.headers))
    return appended is not None


async def _submit(producer: Any, batch: Any, name: str, partition: int) -> Any:
    batch.close()  # or the client would go on filling it
    return await producer.send_batch(batch, name, partition=partition)
