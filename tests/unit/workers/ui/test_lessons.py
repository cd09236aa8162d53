"""Teaching a pool from a document: what is taught, what the pool says otherwise, and what is no example."""

from __future__ import annotations

from typing import Any, cast

import pytest

from el4ner.pools import Pool
from el4ner.pools.examples import PoolExample
from el4ner.pools.pool import PoolSentence
from el4ner.pools.taught import TaughtPool, taught_pool
from el4ner.types import Span
from tests.support.running_page import tagged_value
from workers.config import load_stream_settings
from workers.http.problems import ProblemError
from workers.messages.pool_examples import ExampleKey
from workers.ui import lessons
from workers.ui.lessons import Lessons

TEXT = "Apple met Ada Lovelace. It rained in Paris."
VALUE = tagged_value("d", TEXT, ("Apple", "person"), ("Paris", "location"))
PLACE = (1, 7)


def labelled(text: str, *spans: tuple[str, str]) -> PoolSentence:
    found = [(Span(text.index(name), text.index(name) + len(name), name), kind) for name, kind in spans]
    return PoolSentence(text, tuple(sorted(found)))


POOL = Pool(
    "news",
    {"person": "a human", "organization": "a firm", "location": "a place"},
    (
        *(labelled(f"Apple sold {count} shares.", ("Apple", "organization")) for count in range(3)),
        labelled("She ate an apple."),
        labelled("Grace Hopper sails.", ("Grace Hopper", "person")),
        labelled("Grace sails."),
    ),
)


class Topic:
    """What is taught, in the place of the broker and of who follows it."""

    def __init__(self) -> None:
        self.examples: dict[ExampleKey, PoolExample] = {}
        self.waited_for: list[ExampleKey] = []

    def send(self, _settings: Any, examples: Any) -> int:
        self.examples.update(examples)
        return 1

    def files(self) -> dict[str, Pool]:
        return {"news": POOL}

    def taught(self, name: str) -> TaughtPool:
        return taught_pool(POOL, [each for key, each in self.examples.items() if key.pool == name])

    def wait_for(self, key: ExampleKey, example: PoolExample) -> bool:
        self.waited_for.append(key)
        return self.examples[key] == example


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    topic = Topic()
    monkeypatch.setattr(lessons, "send_examples", topic.send)
    return topic


@pytest.fixture
def opened(topic: Topic) -> Lessons:
    settings = load_stream_settings(environ={}, overrides={"kafka": {"topic_prefix": "p."}})
    return Lessons(settings, cast("Any", topic), lambda: 12.5)


def teach(opened: Lessons, start: int, *spans: tuple[int, int, str], **more: Any) -> dict[str, Any]:
    named = [{"start": begin, "end": end, "type": kind} for begin, end, kind in spans]
    return opened.teach(VALUE, PLACE, {"start": start, "spans": named, **more}, "ann")


def test_a_document_is_opened_by_its_sentences(opened: Lessons) -> None:
    lesson = opened.opened(VALUE)
    assert [kind["name"] for kind in lesson["types"]] == ["person", "organization", "location"]
    assert [sentence["start"] for sentence in lesson["sentences"]] == [0, 24]
    assert lesson["sentences"][1] == {
        "start": 24,
        "pieces": [["It rained in Paris.", [], None]],
        "spans": [{"start": 13, "end": 18, "type": "location"}],
    }


def test_a_sentence_is_taught_with_who_said_it_and_where_it_is_from(opened: Lessons, topic: Topic) -> None:
    assert teach(opened, 0, (0, 5, "organization"), (10, 22, "person")) == {"taught": True, "disagreements": []}
    ((key, example),) = topic.examples.items()
    assert (key.pool, key.digest) == ("news", example.digest)
    assert topic.waited_for == [key]  # who opens the next lesson finds it taught
    assert example.text == "Apple met Ada Lovelace."
    assert [(span.text, kind) for span, kind in example.spans] == [
        ("Apple", "organization"),
        ("Ada Lovelace", "person"),
    ]
    assert (example.teacher, example.taught_at) == ("ann", 12_500)
    source = example.source
    assert source is not None
    assert (source.document, source.topic, source.partition, source.offset) == ("d", "p.tagged-documents", 1, 7)


def test_what_the_pool_says_otherwise_is_told_and_not_taught_until_somebody_is_sure(
    opened: Lessons, topic: Topic
) -> None:
    answer = teach(opened, 0, (0, 5, "person"))
    assert answer["taught"] is False
    (said,) = answer["disagreements"]
    assert said == "the pool calls 'Apple' organization 3 times, no entity once, person never; the example: person"
    assert topic.examples == {}
    assert teach(opened, 0, (0, 5, "person"), sure=True)["taught"] is True
    # A name of the pool that is left unmarked.
    assert "the example: no entity" in teach(opened, 0)["disagreements"][0]


def test_a_new_type_comes_with_its_description(opened: Lessons, topic: Topic) -> None:
    with pytest.raises(ProblemError, match="weather"):
        teach(opened, 24, (3, 9, "weather"))
    teach(opened, 24, (3, 9, "weather"), types={"weather": "what comes from the sky"})
    (example,) = topic.examples.values()
    assert example.types == {"weather": "what comes from the sky"}
    assert "weather" in [kind["name"] for kind in opened.opened(VALUE)["types"]]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"start": 3, "spans": []}, "no sentence that begins there"),
        ({"start": 0, "spans": [{"start": 0, "end": 500, "type": "person"}]}, "start, end and type"),
        ({"start": 0, "spans": [{"start": 0}]}, "start, end and type"),
        ({"start": 0, "spans": [{"start": "0", "end": 5, "type": "person"}]}, "start, end and type"),
        ({"start": 0, "spans": "x"}, "start, end and type"),
        ({"start": 0, "spans": [], "types": ["x"]}, "start, end and type"),
        ({"start": 0, "spans": [{"start": 0, "end": 5, "type": "persn"}]}, "nearest: 'person'"),
    ],
)
def test_what_is_no_example_is_refused(opened: Lessons, topic: Topic, body: dict[str, Any], what: str) -> None:
    with pytest.raises(ProblemError, match=what) as raised:
        opened.teach(VALUE, PLACE, body, "ann")
    assert raised.value.status == 422
    assert topic.examples == {}


def test_a_document_of_a_pool_that_the_page_does_not_have_is_not_taught_from(opened: Lessons) -> None:
    with pytest.raises(ProblemError, match="does not know pool 'logs'"):
        opened.opened({**VALUE, "pool": "logs"})
    with pytest.raises(ProblemError, match="no text"):
        opened.opened({**VALUE, "text": None})
