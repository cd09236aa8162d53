"""The page never falls behind: it goes on at the end and says how much it skipped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition

from tests.support.paths import ROOT
from workers.config import KafkaSettings, UiSettings
from workers.messages.result_encoding import result_encoder
from workers.messages.result_reading import ResultReading
from workers.messages.result_schemas import result_schema
from workers.registry.registered_schema import RegisteredSchema, RegistryAwayError
from workers.registry.wire_format import framed
from workers.topics import Topic
from workers.ui.followed_topic import FollowedTopic
from workers.ui.live_feed import LiveFeed

PARTITION = TopicPartition("tagged-documents", 0)


class Consumer:
    """At offset 100, of so many."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.at = 100
        self.partitions = 1
        self.asked = asyncio.Event()

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    async def position(self, _partition: TopicPartition) -> int:
        self.asked.set()
        return self.at

    def partitions_for_topic(self, _name: str) -> set[int]:
        return set(range(self.partitions))

    async def beginning_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.at = offset


async def probed(end: int) -> tuple[Consumer, LiveFeed, FollowedTopic]:
    feed = LiveFeed(UiSettings(), 0)
    followed, consumer = FollowedTopic(KafkaSettings(), feed, lambda: 0.0), Consumer(end)
    probe = asyncio.create_task(followed._probe(consumer, [PARTITION]))
    await consumer.asked.wait()
    await asyncio.sleep(0)
    probe.cancel()
    return consumer, feed, followed


async def test_far_behind_it_goes_on_at_the_end_and_says_how_much_it_skipped() -> None:
    consumer, feed, followed = await probed(50_100)
    assert (consumer.at, feed.skipped, followed.behind) == (50_100, 50_000, 0)


async def test_a_little_behind_it_reads_on() -> None:
    consumer, feed, followed = await probed(5_100)
    assert (consumer.at, feed.skipped, followed.behind) == (100, 0, 5_000)


async def test_partitions_that_are_added_are_followed_from_their_beginning() -> None:
    followed, consumer = FollowedTopic(KafkaSettings(), LiveFeed(UiSettings(), 0), lambda: 0.0), Consumer(150)
    await followed._seek(consumer, [PARTITION])
    assert consumer.at == 150
    consumer.partitions = 2
    await followed._probe(consumer, [PARTITION])  # ends, so that the topic is followed anew
    await followed._seek(consumer, [PARTITION, TopicPartition("tagged-documents", 1)])
    assert consumer.at == 0


class Polled(Consumer):
    """Gives each of these polls once, and then nothing."""

    def __init__(self, *polls: dict[TopicPartition, list[Any]]) -> None:
        super().__init__(100)
        self.polls = list(polls)

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        return self.polls.pop(0) if self.polls else {}


@dataclass
class Registry:
    """One that is away at first."""

    outages: int

    def schema(self, _schema_id: int) -> RegisteredSchema:
        if self.outages:
            self.outages -= 1
            raise RegistryAwayError("refused")
        return result_schema(Topic.TAGGED_DOCUMENTS, "avro")

    def close(self) -> None:
        pass


async def test_documents_of_every_format_are_shown_and_a_registry_that_is_away_is_said() -> None:
    value = (ROOT / "schemas/examples/tagged-documents.v1.complete.json").read_bytes()
    avro = framed(7, result_encoder(Topic.TAGGED_DOCUMENTS, "avro")(value))
    messages = [value, framed(8, value), avro, avro[:-3], None]
    records = [SimpleNamespace(offset=n, timestamp=0, key=b"k", value=each) for n, each in enumerate(messages)]
    feed = LiveFeed(UiSettings(), 0)
    followed = FollowedTopic(KafkaSettings(), feed, lambda: 0.0)
    followed._results = ResultReading(KafkaSettings(), Topic.TAGGED_DOCUMENTS, Registry(outages=1))
    with pytest.raises(RegistryAwayError):
        await followed._follow(Polled({PARTITION: records}), [PARTITION])
    assert feed.documents == 0
    consumer = Consumer(100)
    await followed._seek(consumer, [PARTITION])
    assert consumer.at == 0  # they come again, though the probe has seen the consumer behind them
    shown: list[Any] = []
    feed.take = lambda record, now: shown.append(record.decoded())  # type: ignore[method-assign]
    following = asyncio.create_task(followed._follow(Polled({PARTITION: records}), [PARTITION]))
    while len(shown) < len(messages):
        await asyncio.sleep(0)
    following.cancel()
    assert shown == [orjson.loads(value)] * 3 + [None, None]
