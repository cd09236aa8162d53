"""What people should look at first: fed by the feed, a sample of it, and what leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

import pytest

from el4ner.errors import ConfigError
from el4ner.pools import Pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.pool import PoolSentence
from el4ner.serialize import dumps
from el4ner.types import Span
from tests.support.running_page import tagged_value
from workers.config import UiSettings, load_stream_settings
from workers.teaching.topic_examples import TeachingError
from workers.ui import review_queues
from workers.ui.feed_records import FeedRecord
from workers.ui.live_feed import LiveFeed
from workers.ui.review_queues import ReviewQueues
from workers.ui.taught_pools import PoolExamples

NOW = 1_000.0
MERE = {"type": "t", "text": "x", "confidence": 1}
"""An entity with no more than the feed looks at."""
POOL = Pool("news", {"person": "a human"}, (PoolSentence("It rained in Paris.", ()),))


class Pools:
    """What is taught, in the place of who follows the topic."""

    def __init__(self) -> None:
        self.version = 1
        self.taught: list[PoolExample] = []
        self.problem: Exception | None = None
        self.away = False

    def files(self) -> dict[str, Pool]:
        if self.problem is not None:
            raise self.problem
        return {"news": POOL}

    def examples(self, name: str) -> PoolExamples:
        if self.away:
            raise TeachingError("no broker")
        return PoolExamples(self.version, self.taught)

    def known_examples(self, name: str) -> PoolExamples | None:
        return None if self.away else self.examples(name)

    def teach(self, *examples: PoolExample) -> None:
        self.taught, self.version = list(examples), self.version + 1


class Stream:
    """The feed with its queues, and offsets."""

    def __init__(self) -> None:
        self.pools = Pools()
        settings = load_stream_settings(environ={})
        self.queues = ReviewQueues(settings, cast("Any", self.pools), Random(7))
        self.feed = LiveFeed(UiSettings(), NOW, self.queues)
        self.offset = 0

    def write(self, *values: dict[str, Any], partition: int = 0) -> None:
        for value in values:
            self.feed.take(FeedRecord(partition, self.offset, 5, value["id"].encode(), dumps(value)), NOW)
            self.offset += 1

    def delete(self, name: str) -> None:
        self.feed.take(FeedRecord(0, self.offset, 5, name.encode(), None), NOW)
        self.offset += 1

    def value(self) -> None:
        """What came in a tick."""
        for _ in range(self.queues.begin_tick()):
            self.queues.value_next()

    def texts(self, now: float = NOW) -> list[str]:
        return [item.sentence.text for item in self.queues.listed("news", now).items]


@pytest.fixture
async def stream() -> Stream:
    stream = Stream()
    await stream.queues.open()
    return stream


def zorko(number: int, text: str = "Zorko met Quill.") -> dict[str, Any]:
    """A document about somebody of whom little is certain."""
    value = tagged_value(f"d{number}", text, ("Zorko", "person"))
    return {**value, "entities": [{**value["entities"][0], "confidence": 0.4}]}


def plain(number: int, text: str) -> dict[str, Any]:
    return tagged_value(f"d{number}", text)


def example(text: str, *names: str) -> PoolExample:
    return PoolExample(
        text, tuple((Span(text.index(name), text.index(name) + len(name), name), "person") for name in names)
    )


def test_what_is_least_known_comes_first_with_where_it_lies(stream: Stream) -> None:
    stream.write(plain(0, "It rained in London."), zorko(1), plain(2, "It rained in Paris."))
    assert stream.texts() == []  # nothing is valued while it comes
    stream.value()
    listed = stream.queues.listed("news", NOW + 10)
    assert [item.sentence.text for item in listed.items] == ["Zorko met Quill.", "It rained in London."]
    first = listed.items[0]
    assert (first.place, first.timestamp_ms, first.sentence.document) == ((0, 1), 5, "d1")
    assert (listed.waiting, listed.documents, listed.valued) == (2, 3, 3)


def test_what_is_taught_or_dismissed_leaves_and_what_is_left_falls(stream: Stream) -> None:
    stream.write(zorko(0), plain(1, "Quill saw Vex in Orm."), plain(2, "Vex slept."))
    stream.value()
    before = {item.sentence.text: item.sentence.value for item in stream.queues.listed("news", NOW).items}
    assert list(before) == ["Zorko met Quill.", "Quill saw Vex in Orm.", "Vex slept."]
    stream.pools.teach(example("Quill saw Vex in Orm.", "Quill", "Vex"))
    listed = stream.queues.listed("news", NOW).items
    assert [item.sentence.text for item in listed] == ["Zorko met Quill.", "Vex slept."]
    assert all(item.sentence.value < before[item.sentence.text] + 1e-9 for item in listed)
    assert "quill" not in listed[0].sentence.new_words
    assert stream.queues.dismiss("news", listed[0].place, listed[0].sentence.start)
    assert stream.texts() == ["Vex slept."]
    assert not stream.queues.dismiss("news", listed[0].place, listed[0].sentence.start)
    assert not stream.queues.dismiss("logs", (0, 0), 0)
    stream.write(zorko(3, "Zorko met Quill."))  # the same words in another document
    stream.value()
    assert stream.texts(NOW + 10) == ["Vex slept."]
    stream.pools.teach()  # withdrawn
    stream.write(plain(4, "Quill saw Vex in Orm."))
    stream.queues.follow_teaching()
    stream.value()
    assert stream.texts(NOW + 20) == ["Quill saw Vex in Orm.", "Vex slept."]


@pytest.mark.parametrize("valued", [True, False], ids=["in the queue", "waiting to be valued"])
def test_deleted_documents_and_revisions_that_are_over_leave(stream: Stream, valued: bool) -> None:
    stream.write(zorko(0), zorko(1, "Zorko slept."), zorko(2, "Zorko ran."), zorko(3, "Zorko sang."))
    if valued:
        stream.value()
        assert len(stream.texts()) == 4
    stream.delete("d0")
    stream.write(plain(1, "Quill slept in it."), {**zorko(2), "text": None, "pool": None, "entities": []})
    stream.value()
    assert sorted(stream.texts(NOW + 10)) == ["Quill slept in it.", "Zorko sang."]
    stream.feed.begins_at(0, stream.offset)  # what was deleted meanwhile, nobody knows
    assert stream.texts(NOW + 20) == []


def test_a_document_that_the_broker_has_no_more_is_not_offered(stream: Stream) -> None:
    stream.write(zorko(0), plain(1, "Vex slept."))
    stream.value()
    stream.queues.forget_place((0, 0))
    assert stream.texts() == ["Vex slept."]


def test_of_many_documents_a_sample_is_valued_that_favours_none(stream: Stream) -> None:
    words = ["".join(chr(97 + number // 26**place % 26) for place in range(3)) for number in range(2_000)]
    stream.write(*(plain(number, f"It was {word}.") for number, word in enumerate(words)))
    stream.value()
    listed = stream.queues.listed("news", NOW)
    assert (listed.documents, listed.valued) == (2_000, 20)
    places = sorted(int(item.sentence.document[1:]) for item in listed.items)
    assert places[0] < 700
    assert places[-1] > 1_300
    stream.value()
    assert stream.queues.listed("news", NOW).valued == 20  # the others are passed over


def test_long_documents_are_fewer_and_looked_at_where_the_page_shows_them(stream: Stream) -> None:
    long = " ".join(f"Vex saw {chr(97 + number % 26)}{chr(97 + number // 26)}o." for number in range(600))
    assert len(long) > 6_000
    stream.write(*(plain(number, long) for number in range(20)))
    stream.value()
    assert stream.queues.listed("news", NOW).valued == 2
    ends = [item.sentence.start + len(item.sentence.text) for item in stream.queues.listed("news", NOW).items]
    assert ends
    assert max(ends) <= 4_000


async def test_memory_is_bounded_however_long_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_queues, "_FEW_PLACES", 5)
    stream = Stream()
    await stream.queues.open()
    for number in range(300):
        stream.write(plain(number, f"It was {chr(97 + number % 26)}{chr(97 + number // 26)}o."))
        stream.value()
        if number % 40 == 0:
            stream.queues.dismiss("news", (0, number), 0)
    assert len(stream.texts()) == 20  # each of them still knows where its document lies
    assert stream.queues.listed("news", NOW).waiting == 292


def test_a_document_is_deleted_whose_sentence_was_listed_and_gave_way_to_one_like_it(stream: Stream) -> None:
    stream.write(zorko(0, "Zorko met 12."))
    stream.value()
    assert stream.texts() == ["Zorko met 12."]
    better = zorko(1, "Zorko met 77.")
    stream.write({**better, "entities": [{**better["entities"][0], "confidence": 0.1}]})
    stream.value()
    stream.delete("d0")
    assert stream.texts() == ["Zorko met 77."]


@pytest.mark.parametrize(
    "value",
    [
        {"id": 5},
        {"pool": "elsewhere"},
        {"text": 7},
        {"entities": [MERE]},
        {"entities": [{**zorko(0)["entities"][0], "start": 0.0, "end": 5.0}]},
    ],
)
def test_what_is_no_document_of_a_pool_is_passed_over(stream: Stream, value: dict[str, Any]) -> None:
    data = {**zorko(0), **value}
    stream.feed.take(FeedRecord(0, 0, 5, b"d0", dumps(data)), NOW)
    stream.value()
    assert stream.texts() == []


async def test_without_a_broker_the_queues_go_by_the_files_and_learn_later() -> None:
    stream = Stream()
    stream.pools.away = True
    await stream.queues.open()
    stream.write(zorko(0), plain(1, "It rained in Paris."))
    stream.value()
    assert stream.texts() == ["Zorko met Quill."]
    stream.pools.away = False
    stream.pools.teach(example("Zorko met Quill.", "Zorko"))
    assert stream.texts() == []


async def test_pools_that_cannot_be_read_are_said_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    stream.pools.problem = ConfigError("pool 'news' has no file")
    said: list[str | None] = []

    async def sleep(_seconds: float) -> None:
        said.append(stream.queues.problem)
        stream.pools.problem = None

    monkeypatch.setattr(review_queues.asyncio, "sleep", sleep)
    await stream.queues.open()
    assert said == ["pool 'news' has no file"]
    assert (stream.queues.problem, stream.queues.pools) == (None, ["news"])


def test_many_examples_at_once_are_learnt_bit_by_bit(stream: Stream) -> None:
    texts: Sequence[str] = [f"Vex {chr(97 + number % 26)}{chr(97 + number // 26)}o." for number in range(120)]
    stream.write(*(plain(number, text) for number, text in enumerate(texts[:20])))
    stream.value()
    assert len(stream.texts()) == 20
    stream.pools.teach(*(example(text) for text in texts))
    for _ in range(3):
        stream.queues.follow_teaching()
    assert stream.texts() == []
