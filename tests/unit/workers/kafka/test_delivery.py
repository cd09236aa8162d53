"""Batches of our own: which partition a message goes to, in what order, and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    PolicyViolationError,
    ProducerFenced,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from workers.kafka.delivery import (
    MAX_BATCH_BYTES,
    DeliveryError,
    RefusedError,
    deliver,
    is_transient,
    partition_of,
    refusal_of,
    send_all,
)
from workers.kafka.size_limits import MAX_REQUEST_BYTES, SizeLimits, batch_bytes
from workers.messages.envelope import Outgoing
from workers.topics import LETTER_HEADERS_BYTES, Topic

NAMES = {topic: f"p.{topic.value}" for topic in Topic}


@dataclass
class Sent:
    """A batch that was handed to the client."""

    topic: str
    partition: int
    messages: list[tuple[bytes | None, bytes | None, Any]]
    size: int


class Noted(BatchBuilder):  # type: ignore[misc]
    """The client's batch, which keeps what it was given."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, 0)
        self.messages: list[tuple[bytes | None, bytes | None, Any]] = []
        self.is_closed = False

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: Any = ()) -> Any:
        appended = super().append(timestamp=timestamp, key=key, value=value, headers=headers)
        if appended is not None:
            self.messages.append((key, value, tuple(headers)))
        return appended

    def close(self) -> None:
        self.is_closed = True
        super().close()


@dataclass
class Producer:
    """As much of the client's producer as is used, with a broker that answers as ``fate`` says."""

    partitions: dict[str, int] = field(default_factory=dict)
    limit: int = MAX_BATCH_BYTES
    fate: Callable[[str, int], Exception | None] = lambda _topic, _partition: None
    sent: list[Sent] = field(default_factory=list)

    async def partitions_for(self, name: str) -> set[int]:
        return set(range(self.partitions.get(name, 4)))

    def create_batch(self) -> Noted:
        return Noted(self.limit)

    async def send_batch(self, batch: Noted, topic: str, *, partition: int) -> asyncio.Future[None]:
        assert batch.is_closed
        await asyncio.sleep(0)
        self.sent.append(Sent(topic, partition, batch.messages, batch.size()))
        delivered = asyncio.get_running_loop().create_future()
        error = self.fate(topic, partition)
        if error is None:
            delivered.set_result(None)
        else:
            delivered.set_exception(error)
        return delivered


def message(
    value: bytes, *, key: bytes | None = b"k", partition: int | None = 0, topic: Topic | str = Topic.TYPED_ENTITIES
) -> Outgoing:
    return Outgoing(topic, key, value, (("h", b"1"),), partition)


# --- where to ---


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_key_has_the_partition_that_other_clients_give_it(key: bytes, partitions: int) -> None:
    expected = (murmur2(key) & 0x7FFFFFFF) % partitions
    assert partition_of(message(b"", key=key), partitions) == expected


def test_a_message_without_a_key_goes_somewhere() -> None:
    found = {partition_of(message(str(number).encode(), key=None), 4) for number in range(100)}
    assert found == {0, 1, 2, 3}


async def test_messages_go_where_they_say_by_name_or_topic() -> None:
    producer = Producer({"elsewhere": 8})
    await send_all(
        producer,
        NAMES,
        [
            message(b"1", partition=3),
            message(b"2", topic=Topic.ENTITY_MENTIONS, partition=None, key=b"place:berlin"),
            message(b"3", topic="elsewhere", partition=None, key=b"place:berlin"),
        ],
    )
    hashed = murmur2(b"place:berlin") & 0x7FFFFFFF
    assert {(sent.topic, sent.partition) for sent in producer.sent} == {
        ("p.typed-entities", 3),
        ("p.entity-mentions", hashed % 4),
        ("elsewhere", hashed % 8),
    }
    assert all(headers == (("h", b"1"),) for sent in producer.sent for _, _, headers in sent.messages)


async def test_a_topic_that_is_gone_is_named() -> None:
    producer = Producer({"p.entity-mentions": 0})
    with pytest.raises(DeliveryError, match=r"p\.entity-mentions"):
        await send_all(producer, NAMES, [message(b"", topic=Topic.ENTITY_MENTIONS, partition=None)])


# --- in batches ---


async def test_nothing_is_sent_for_nothing() -> None:
    producer = Producer()
    await send_all(producer, NAMES, [])
    assert producer.sent == []


async def test_each_partition_keeps_its_order_over_batches_that_are_full() -> None:
    producer = Producer(limit=2_000)
    values = [str(number).encode().rjust(100) for number in range(200)]
    await send_all(producer, NAMES, [message(value, partition=number % 2) for number, value in enumerate(values)])
    for partition in (0, 1):
        batches = [sent for sent in producer.sent if sent.partition == partition]
        assert [value for sent in batches for _, value, _ in sent.messages] == values[partition::2]
        assert len(batches) > 3
        assert max(sent.size for sent in batches) <= 2_000


async def test_a_message_larger_than_a_batch_goes_alone() -> None:
    producer = Producer(limit=2_000)
    values = [b"a", b"L" * 50_000, b"b"]
    await send_all(producer, NAMES, [message(value) for value in values])
    assert [[value for _, value, _ in sent.messages] for sent in producer.sent] == [[value] for value in values]


# --- errors ---


async def test_an_error_is_raised_when_all_others_are_through() -> None:
    def fate(_: str, partition: int) -> Exception | None:
        return MessageSizeTooLargeError("too large") if partition == 1 else None

    producer = Producer(fate=fate)
    with pytest.raises(RefusedError):
        await send_all(producer, NAMES, [message(b"v", partition=partition) for partition in (1, 0, 2)])
    assert {sent.partition for sent in producer.sent} == {0, 1, 2}


# --- what is refused for one message's sake ---


@given(
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=3_000),
    st.lists(st.tuples(st.text(max_size=40), st.none() | st.binary(max_size=40)), max_size=5),
)
def test_the_size_of_a_message_is_what_the_client_would_send(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    sized = Outgoing(Topic.TYPED_ENTITIES, key, value, tuple(headers), 0)  # type: ignore[arg-type]
    batch = BatchBuilder(1, 0)
    batch.append(timestamp=None, key=key, value=value, headers=headers)
    size = batch.size()
    assert batch_bytes(sized) == size == len(batch._build())
    exact, less = (SizeLimits({"p.typed-entities": limit}) for limit in (size, size - 1))
    assert refusal_of(NAMES, sized, exact) is None
    refused = refusal_of(NAMES, sized, less)
    assert refused is not None
    assert refused.code == refused.of_the_document.code == "output-too-large"


async def test_a_message_that_is_larger_than_its_topic_allows_is_refused_before_anything_is_sent() -> None:
    producer = Producer()
    limits = SizeLimits({"p.typed-entities": 5_000})
    with pytest.raises(RefusedError) as refused:
        await send_all(producer, NAMES, [message(b"small"), message(b"L" * 6_000)], limits)
    said = str(refused.value)
    for word in (
        "6,0",
        "'p.typed-entities'",
        "max.message.bytes is 5,000",
        "kafka.max_message_bytes",
        "method.max_spans",
    ):
        assert word in said
    assert not refused.value.by_broker
    assert producer.sent == []


def test_what_a_stage_reads_has_to_fit_into_the_dead_letters_too() -> None:
    limits = SizeLimits(
        {"p.typed-entities": 400_000, "p.dead-letters": 400_000, "p.tagged-documents": 400_000},
        read=frozenset({"p.typed-entities"}),
        letters="p.dead-letters",
    )
    assert limits.allowed("p.typed-entities") == 400_000 - LETTER_HEADERS_BYTES
    assert limits.allowed("p.tagged-documents") == limits.allowed("p.dead-letters") == 400_000
    refused = limits.refusal("p.typed-entities", message(b"L" * 399_000))
    assert refused is not None
    assert "'p.dead-letters'" in refused
    assert "334,464" in refused


def test_no_message_is_larger_than_what_a_broker_takes_in_one_request() -> None:
    limits = SizeLimits({"p.typed-entities": 1 << 30})
    assert limits.allowed("p.typed-entities") == limits.allowed("unknown") == MAX_REQUEST_BYTES
    assert "one request" in (limits.too_large("p.typed-entities", 1 << 29))


async def test_messages_together_are_no_larger_than_what_their_topic_allows() -> None:
    producer = Producer()
    values = [str(number).encode().rjust(100) for number in range(100)]
    await send_all(producer, NAMES, [message(value) for value in values], SizeLimits({"p.typed-entities": 1_000}))
    assert [value for sent in producer.sent for _, value, _ in sent.messages] == values
    assert max(sent.size for sent in producer.sent) <= 1_000
    assert len(producer.sent) < 30


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MessageSizeTooLargeError(), "output-too-large"),
        (RecordListTooLargeError(), "output-too-large"),
        (InvalidTimestampError(), "undeliverable"),
        (for_code(87)(), "undeliverable"),  # INVALID_RECORD
        (CorruptRecordException(), "undeliverable"),
        (PolicyViolationError(), "undeliverable"),
    ],
)
async def test_what_a_broker_has_against_a_message_is_that_messages_failure(error: KafkaError, code: str) -> None:
    with pytest.raises(RefusedError, match=r"'p\.typed-entities'") as refused:
        await send_all(Producer(fate=lambda *_: error), NAMES, [message(b"v")])
    assert (refused.value.code, refused.value.by_broker) == (code, True)


@pytest.mark.parametrize(
    "error", [TopicAuthorizationFailedError("t"), ProducerFenced(), ClusterAuthorizationFailedError()]
)
async def test_what_a_broker_has_against_everybody_is_not(error: KafkaError) -> None:
    with pytest.raises(type(error)):
        await send_all(Producer(fate=lambda *_: error), NAMES, [message(b"v")])


@pytest.mark.parametrize(
    "broken",
    [
        Outgoing(Topic.TYPED_ENTITIES, b"k", b"v", (("\ud800", b"1"),), 0),
        Outgoing(Topic.TYPED_ENTITIES, "text", b"v", (), 0),  # type: ignore[arg-type]
        Outgoing(Topic.TYPED_ENTITIES, b"k", b"v", (("h", "text"),), 0),  # type: ignore[arg-type]
    ],
)
async def test_what_the_client_cannot_write_down_is_that_messages_failure(broken: Outgoing) -> None:
    with pytest.raises(RefusedError, match="cannot be written"):
        await send_all(Producer(), NAMES, [broken])


# --- trying again ---


async def delivering(errors: list[KafkaError]) -> tuple[int, list[tuple[str, int]], list[int]]:
    """Calls, what was told, and which waits were asked for."""
    calls, told, waits = 0, [], []

    async def send() -> None:
        nonlocal calls
        calls += 1
        if errors:
            raise errors.pop(0)

    def wait(retry: int) -> float:
        waits.append(retry)
        return 0.0

    await deliver(send, wait=wait, on_retry=lambda error, retry: told.append((type(error).__name__, retry)))
    return calls, told, waits


async def test_what_may_pass_is_tried_again_until_it_has_passed() -> None:
    errors: list[KafkaError] = [KafkaConnectionError(), NotEnoughReplicasError(), KafkaTimeoutError()]
    calls, told, waits = await delivering(errors)
    assert calls == 4
    assert told == [("KafkaConnectionError", 1), ("NotEnoughReplicasError", 2), ("KafkaTimeoutError", 3)]
    assert waits == [1, 2, 3]


async def test_what_cannot_pass_is_raised_at_once() -> None:
    errors: list[KafkaError] = [MessageSizeTooLargeError(), KafkaConnectionError()]
    with pytest.raises(MessageSizeTooLargeError):
        await delivering(errors)
    assert len(errors) == 1


def test_only_kafkas_errors_may_pass() -> None:
    assert not is_transient(ConnectionError())
    assert not is_transient(DeliveryError("gone"))
