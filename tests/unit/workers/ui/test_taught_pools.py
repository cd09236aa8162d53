"""The page knows what pools are taught: read once, and followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from el4ner.pools.examples import PoolExample
from el4ner.types import Span
from tests.support.followed_topic import FollowedTopic
from workers.config import load_stream_settings
from workers.messages.pool_examples import ExampleKey, example_message
from workers.teaching.taught_examples import ExampleRecord
from workers.teaching.topic_examples import TeachingError
from workers.topics import TopicError
from workers.ui import following_thread, taught_pools
from workers.ui.taught_pools import TaughtPools

SECONDS = 60.0


def example(text: str, at: int = 1) -> PoolExample:
    return PoolExample(text, ((Span(0, 5, text[:5]), "person"),), {}, "ann", at)


def record(offset: int, taught: PoolExample, *, withdrawn: bool = False) -> ExampleRecord:
    key = ExampleKey("news", taught.digest)
    message = example_message(key, None if withdrawn else taught, now_ms=5, random=lambda count: bytes(count))
    return ExampleRecord(message.key, message.value, 0, offset, 5)


def topic_of(*begins: Sequence[ExampleRecord]) -> FollowedTopic:
    return FollowedTopic(*begins, away="no Kafka broker answers")


@contextmanager
def following(topic: FollowedTopic, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaughtPools]:
    monkeypatch.setattr(taught_pools, "followed_examples", topic.followed)
    monkeypatch.setattr(following_thread, "_RETRY_SECONDS", 0.01)
    pools = TaughtPools(load_stream_settings(environ={}), patience_seconds=SECONDS)
    pools.start()
    try:
        yield pools
    finally:
        pools.close(SECONDS)


ADA, BOB = example("Grace ran far away."), example("Linus ran far away.")


def texts(pools: TaughtPools) -> list[str]:
    return [each.text for each in pools.taught("news").examples]


def test_a_pool_is_as_it_is_taught_and_the_topic_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = topic_of([record(0, ADA)])
    with following(topic, monkeypatch) as pools:
        first = pools.taught("news")
        assert [each.text for each in first.examples] == [ADA.text]
        assert first.pool.fingerprint != pools.files()["news"].fingerprint
        assert pools.taught("news") is first  # nothing is made anew as long as nothing changes
        assert pools.taught("logs").examples == ()
        topic.coming.put([record(1, BOB)])
        assert pools.wait_for(ExampleKey("news", BOB.digest), BOB)
        assert sorted(texts(pools)) == [ADA.text, BOB.text]
        topic.coming.put([record(2, ADA, withdrawn=True), record(3, later := example(BOB.text, at=9))])
        assert pools.wait_for(ExampleKey("news", BOB.digest), later)
        assert texts(pools) == [BOB.text]
        assert topic.readings == 1


def test_without_a_broker_it_is_said_and_read_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = topic_of()
    with following(topic, monkeypatch) as pools:
        with pytest.raises(TeachingError, match="no Kafka broker answers"):
            pools.taught("news")
        assert pools.known_examples("news") is None
        topic.begins.append([record(0, ADA)])
        assert pools.wait_for(ExampleKey("news", ADA.digest), ADA)
        assert texts(pools) == [ADA.text]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("wrong", [TopicError("offset out of range"), ZeroDivisionError("a bug")])
def test_what_is_known_stays_until_the_topic_is_read_again(monkeypatch: pytest.MonkeyPatch, wrong: Exception) -> None:
    topic = topic_of([record(0, ADA)], [record(0, BOB)])
    with following(topic, monkeypatch) as pools:
        assert texts(pools) == [ADA.text]
        topic.coming.put(wrong)
        assert pools.wait_for(ExampleKey("news", BOB.digest), BOB)
        assert texts(pools) == [BOB.text]  # of a topic that was made anew the old one's examples are gone
