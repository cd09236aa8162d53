"""A partition's transactions without a broker: what is committed, taken back, tried again or left to the next owner."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, NotLeaderForPartitionError, ProducerFenced, TopicAuthorizationFailedError

from workers.backoff import Backoff
from workers.config import load_stream_settings
from workers.kafka import transactions
from workers.kafka.delivery import DeliveryError, RefusedError
from workers.kafka.transactions import ConsumedOffset, FencedError, TransactionalWriter
from workers.messages.envelope import Outgoing

MESSAGES = [Outgoing("t", b"k", b"v", (), 0)]


class Producer:
    """What a writer asks of aiokafka's: each step is noted, and may fail as ``fails`` says, once."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.fails: dict[str, list[Exception]] = {}
        self.offsets: list[tuple[str, Any]] = []

    def step(self, name: str) -> None:
        self.steps.append(name)
        if self.fails.get(name):
            raise self.fails[name].pop(0)

    async def begin_transaction(self) -> None:
        self.step("begin")

    async def send_offsets_to_transaction(self, offsets: Any, group: str) -> None:
        self.step("offsets")
        self.offsets.append((group, offsets))

    async def commit_transaction(self) -> None:
        self.step("commit")

    async def abort_transaction(self) -> None:
        self.step("abort")


@pytest.fixture
async def producer() -> Producer:
    return Producer()


@pytest.fixture
async def ended() -> list[str]:
    return []


@pytest.fixture
async def writer(producer: Producer, ended: list[str], monkeypatch: pytest.MonkeyPatch) -> TransactionalWriter:
    async def send_all(*_: Any) -> None:
        producer.step("send")

    monkeypatch.setattr(transactions, "send_all", send_all)
    made = TransactionalWriter(
        load_stream_settings(environ={}).kafka,
        {},
        0,
        backoff=Backoff(uniform=lambda *_: 0.0),
        ended=lambda outcome, _: ended.append(outcome),
    )
    client, made._producer = made._producer, producer
    client._closed = True  # it never began, and would complain about not having been stopped
    return made


async def test_a_refused_message_takes_its_transaction_back_and_the_next_one_goes_on(
    writer: TransactionalWriter, producer: Producer, ended: list[str]
) -> None:
    producer.fails = {"send": [RefusedError("too large")]}
    with pytest.raises(RefusedError):
        await writer.write(MESSAGES)
    await writer.write(MESSAGES)
    assert producer.steps == ["begin", "send", "abort", "begin", "send", "commit"]
    assert ended == ["aborted", "committed"]


async def test_what_may_pass_is_taken_back_and_tried_again(
    writer: TransactionalWriter, producer: Producer, ended: list[str]
) -> None:
    producer.fails = {"send": [NotLeaderForPartitionError()]}
    await writer.write(MESSAGES)
    assert producer.steps == ["begin", "send", "abort", "begin", "send", "commit"]
    assert ended == ["aborted", "committed"]


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        ("send", TopicAuthorizationFailedError(), TopicAuthorizationFailedError),
        ("send", ProducerFenced(), FencedError),
        ("commit", ProducerFenced(), FencedError),
        # It may be committed: to write it again would be to write it twice.
        ("commit", NotLeaderForPartitionError(), DeliveryError),
    ],
)
async def test_what_is_in_doubt_or_cannot_pass_is_written_by_nobody_but_the_next_owner(
    writer: TransactionalWriter, producer: Producer, step: str, error: KafkaError, expected: type[Exception]
) -> None:
    producer.fails = {step: [error]}
    with pytest.raises(expected):
        await writer.write(MESSAGES)
    assert producer.steps == ["begin", "send", "commit"][: 2 + (step == "commit")]


async def test_how_far_a_group_has_come_is_committed_with_what_it_led_to_or_not_at_all(
    writer: TransactionalWriter, producer: Producer
) -> None:
    producer.fails = {"offsets": [NotLeaderForPartitionError()]}
    await writer.write(MESSAGES, ConsumedOffset("el4ner-extract", "documents", 2, 17))
    assert producer.steps == ["begin", "send", "offsets", "abort", "begin", "send", "offsets", "commit"]
    assert producer.offsets == [("el4ner-extract", {TopicPartition("documents", 2): 17})]
