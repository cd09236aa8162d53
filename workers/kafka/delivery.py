"""Messages to Kafka in batches of our own, each with its delivery awaited.

Message by message, a client in Python takes some 50 µs for each (a future, a metadata look-up, a lock); a batch that is
built here takes that once. Per topic and partition, messages keep their order.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from aiokafka.errors import (
    BrokerResponseError,
    CorruptRecordException,
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    UnknownError,
    kafka_errors,
)

from el4ner.errors import DocumentError, El4nerError
from workers.kafka.size_limits import SizeLimits, batch_bytes, fits, record_bytes
from workers.messages.envelope import Outgoing
from workers.topics import Topic

__all__ = [
    "MAX_BATCH_BYTES",
    "NO_LIMITS",
    "REFUSALS",
    "DeliveryError",
    "RefusedError",
    "deliver",
    "is_transient",
    "may_be_of_a_message",
    "partition_of",
    "refusal_of",
    "send_all",
]

MAX_BATCH_BYTES: Final = 512 * 1024
"""A batch counts as one message where brokers limit its size (1 MB by default); a single larger message goes alone."""

NO_LIMITS: Final = SizeLimits()


class InvalidRecordError(BrokerResponseError):  # type: ignore[misc]
    """A broker's own check of the records in a batch has refused one."""

    errno = 87
    message = "INVALID_RECORD"


# aiokafka (0.14) has no name for it, and an unknown code says nothing of what was written.
kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
REFUSALS: Final = (
    *_TOO_LARGE,
    CorruptRecordException,
    InvalidTimestampError,
    PolicyViolationError,
    InvalidRecordError,
)
"""What a broker answers because of the records in a batch, before it writes any of them. Anything else is about the
producer, its rights or the cluster, and would be answered to any message."""


class DeliveryError(El4nerError):
    """A message was not delivered; the text names its topic."""

    code = "delivery"


class RefusedError(DeliveryError):
    """A message can never be delivered as it is: that is its document's failure, and others can be delivered.

    ``code``: ``output-too-large`` or ``undeliverable``. ``by_broker``: the broker refused a batch; the message may be
    any of it.
    """

    code = "undeliverable"

    def __init__(self, message: str, *, code: str | None = None, by_broker: bool = False) -> None:
        super().__init__(message, code=code)
        self.by_broker = by_broker

    @property
    def of_the_document(self) -> DocumentError:
        """As a dead letter and a failed answer say it."""
        return DocumentError(str(self), code=self.code)


def refusal_of(names: Mapping[Topic, str], message: Outgoing, limits: SizeLimits) -> RefusedError | None:
    """The error that :func:`send_all` raises before it sends anything, if the message is too large; None: it fits."""
    reason = limits.refusal(_name(names, message), message)
    return None if reason is None else RefusedError(reason, code="output-too-large")


async def send_all(
    producer: Any, names: Mapping[Topic, str], messages: Iterable[Outgoing], limits: SizeLimits = NO_LIMITS
) -> None:
    """Send every message and wait until all are delivered.

    ``producer``: a started ``AIOKafkaProducer`` (in a transaction, if it has one).

    Raises:
        KafkaError: the first that came; other messages may be delivered or not.
        RefusedError: a message can never be delivered as it is; other messages may be delivered or not. Unless it is
            ``by_broker``, that message was not sent.
        DeliveryError: a topic is gone.
    """
    sized = [_Sized(message, _name(names, message), record_bytes(message)) for message in messages]
    allowed = {name: limits.allowed(name) for name in {each.name for each in sized}}
    for each in sized:
        too_large = None if fits(each.size, allowed[each.name]) else refusal_of(names, each.message, limits)
        if too_large is not None:
            raise too_large
    partitions: dict[str, int] = {}
    by_place: dict[tuple[str, int], list[_Sized]] = {}
    for each in sized:
        partition = each.message.partition
        if partition is None:
            if each.name not in partitions:
                partitions[each.name] = len(await _partitions(producer, each.name))
            partition = partition_of(each.message, partitions[each.name])
        by_place.setdefault((each.name, partition), []).append(each)
    if by_place:
        # One partition's batches one after another, as the client sends them; partitions beside each other.
        results = await asyncio.gather(
            *(_send(producer, name, partition, group, allowed[name]) for (name, partition), group in by_place.items()),
            return_exceptions=True,
        )
        for result in results:
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


def may_be_of_a_message(error: BaseException) -> bool:
    """Whether one of the messages may be the cause of what delivery has raised.

    It is not where the broker names the producer, its rights or the cluster as the reason.
    """
    if isinstance(error, DeliveryError):
        return isinstance(error, RefusedError)
    if isinstance(error, KafkaError):
        return isinstance(error, UnknownError)
    return not isinstance(error, El4nerError)


def partition_of(message: Outgoing, partitions: int) -> int:
    """By the key, as every Kafka client does it (murmur2); a message without one by its value."""
    source = message.key if message.key is not None else message.value or b""
    return _hashed(source) % partitions


_MULTIPLIER: Final = 0x5BD1E995
_32_BITS: Final = 0xFFFFFFFF


@lru_cache(maxsize=8_192)  # names come again
def _hashed(source: bytes) -> int:
    """murmur2 as Kafka's clients have it, as a number that is not negative. aiokafka's own goes byte by byte, which for
    a long key takes longer than all else that is done for a mention."""
    hashed = 0x9747B28C ^ len(source)
    words = len(source) // 4
    for word in struct.unpack_from(f"<{words}I", source):
        mixed = word * _MULTIPLIER & _32_BITS
        mixed = (mixed ^ mixed >> 24) * _MULTIPLIER & _32_BITS
        hashed = hashed * _MULTIPLIER & _32_BITS ^ mixed
    if rest := source[4 * words :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _32_BITS
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _32_BITS
    return (hashed ^ hashed >> 15) & 0x7FFFFFFF


async def _partitions(producer: Any, name: str) -> Sequence[int]:
    partitions = await producer.partitions_for(name)
    if not partitions:
        raise DeliveryError(f"topic {name!r} is gone: el4ner topics create")
    return list(partitions)


def _name(names: Mapping[Topic, str], message: Outgoing) -> str:
    return names[message.topic] if isinstance(message.topic, Topic) else message.topic


class _Sized(NamedTuple):
    """A message, the topic that it goes to, and what it adds to a batch at most."""

    message: Outgoing
    name: str
    size: int


async def _send(producer: Any, name: str, partition: int, messages: Sequence[_Sized], allowed: int) -> None:
    deliveries = []
    # Several messages together are one batch to the broker: no larger than what it takes.
    most = min(MAX_BATCH_BYTES, allowed)
    batch = producer.create_batch()
    for message, _, size in messages:
        if batch.record_count() and batch.size() + size > most:
            deliveries.append(await _submit(producer, batch, name, partition))
            batch = producer.create_batch()
        if not _append(batch, message, name):
            deliveries.append(await _submit(producer, batch, name, partition))
            batch = producer.create_batch()
            if not _append(batch, message, name):
                raise RefusedError(f"a message of {len(message.value or b'')} bytes fits in no batch for {name!r}")
    deliveries.append(await _submit(producer, batch, name, partition))
    try:
        await asyncio.gather(*deliveries)
    except _TOO_LARGE as error:
        # The topic's limit was lowered since it was read, or was never read.
        size = max(batch_bytes(each.message) for each in messages)
        raise RefusedError(
            f"the broker refuses a message of {size:,} bytes for topic {name!r} as too large ({_words(error)}): raise "
            f"kafka.max_message_bytes and max.message.bytes of {name!r}, or lower method.max_spans or "
            "method.max_document_chars",
            code="output-too-large",
            by_broker=True,
        ) from error
    except REFUSALS as error:
        raise RefusedError(
            f"the broker refuses a message for topic {name!r}: {_words(error)}", by_broker=True
        ) from error


def _words(error: KafkaError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _append(batch: Any, message: Outgoing, name: str) -> bool:
    try:
        appended = batch.append(timestamp=None, key=message.key, value=message.value, headers=list(message.headers))
    except MemoryError:
        raise
    except Exception as error:
        # The client cannot write it down: a header that is no text, a number that is too large for its field.
        raise RefusedError(
            f"a message for topic {name!r} cannot be written: {type(error).__name__}: {error}"
        ) from error
    return appended is not None


async def _submit(producer: Any, batch: Any, name: str, partition: int) -> Any:
    batch.close()  # or the client would go on filling it
    return await producer.send_batch(batch, name, partition=partition)
