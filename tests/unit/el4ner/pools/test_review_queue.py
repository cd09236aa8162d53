"""What a person is shown first, and that it does not depend on the order in which a stream came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.pools import Pool, PoolSentence
from el4ner.pools.review_queue import QueuedSentence, ReviewQueue
from el4ner.types import Entity, Span, TaggedDocument

POOL = Pool(
    "p",
    {"person": "a human", "place": "where one can be"},
    (PoolSentence("Anna runs to Porto at 10:15", ((Span(0, 4, "Anna"), "person"),)),),
)
WORDS = ("Anna", "Porto", "Zephyr", "Quill", "runs", "to", "swims", "12", "77", "10:15")


def document(number: int, text: str, *confidences: float) -> TaggedDocument:
    """Its first words are entities, with these confidences."""
    entities, start = [], 0
    for word, confidence in zip(text.split(" "), confidences, strict=False):
        entities.append(Entity(start, start + len(word), word, "person", confidence))
        start += len(word) + 1
    return TaggedDocument(str(number), text, tuple(entities), "p")


@st.composite
def streams(draw: st.DrawFn, words: Sequence[str] = WORDS) -> list[TaggedDocument]:
    texts = draw(st.lists(st.lists(st.sampled_from(words), min_size=1, max_size=4).map(" ".join), max_size=8))
    confidences = st.lists(st.floats(0, 1, allow_subnormal=False), max_size=3)
    return [document(number, text, *draw(confidences)) for number, text in enumerate(texts)]


def queued(documents: list[TaggedDocument], *, room: int = 3, count: int = 100, pool: Pool = POOL) -> ReviewQueue:
    queue = ReviewQueue(pool, room=room)
    for each in documents:
        queue.add(each)
    return queue


def texts(sentences: list[QueuedSentence]) -> list[str]:
    return [sentence.text for sentence in sentences]


def without_numbers(text: str) -> str:
    return re.sub(r"[0-9]+", "0", text.lower())


@given(streams().flatmap(lambda own: st.tuples(st.just(own), st.permutations(own))))
def test_the_order_of_the_stream_is_nowhere_in_it(both: tuple[list[TaggedDocument], list[TaggedDocument]]) -> None:
    first, second = (queued(documents).first(100) for documents in both)
    assert first == second


@given(streams(), st.integers(1, 4))
def test_it_has_room_for_so_many_and_no_two_alike(documents: list[TaggedDocument], room: int) -> None:
    shown = queued(documents, room=room).first(100)
    assert len(shown) <= room
    kinds = [without_numbers(text) for text in texts(shown)]
    assert len(set(kinds)) == len(kinds)
    assert without_numbers(POOL.sentences[0].text) not in kinds


@given(streams(), st.integers(0, 9))
def test_fewer_are_the_first_of_more(documents: list[TaggedDocument], count: int) -> None:
    queue = queued(documents, room=100)
    assert queue.first(count) == queue.first(100)[:count]


@given(streams([word for word in WORDS if word.isalpha()]))
def test_values_fall_and_each_is_the_best_of_what_is_left(documents: list[TaggedDocument]) -> None:
    shown = queued(documents, room=100).first(100)
    values = [sentence.value for sentence in shown]
    assert values == sorted(values, reverse=True)
    for place in range(1, len(shown)):
        # Without the one at this place, and its repeats, the ones in front of it are as they were.
        fewer = [each for each in documents if each.text != shown[place].text]
        assert texts(queued(fewer, room=100).first(place)) == texts(shown)[:place]


@given(streams(), st.integers(0, 7))
def test_nothing_of_a_deleted_document_is_shown(documents: list[TaggedDocument], number: int) -> None:
    queue = queued(documents, room=100)
    queue.forget(str(number))
    assert all(sentence.document != str(number) for sentence in queue.first(100))


def test_the_least_certain_comes_first() -> None:
    documents = [document(0, "Anna runs", 0.9), document(1, "Anna swims", 0.3), document(2, "Porto swims", 0.6)]
    assert texts(queued(documents).first(3)) == ["Anna swims", "Porto swims", "Anna runs"]


def test_what_the_pool_does_not_know_comes_before_what_it_knows() -> None:
    documents = [document(0, "Anna runs", 1.0), document(1, "Zephyr runs", 1.0), document(2, "to Porto", 1.0)]
    first = queued(documents).first(1)[0]
    assert (first.text, list(first.new_words)) == ("Zephyr runs", ["zephyr"])


def test_what_one_above_has_taught_is_worth_less_below() -> None:
    documents = [document(0, "Zephyr runs", 0.5), document(1, "Zephyr swims to", 0.49), document(2, "Quill runs", 0.6)]
    shown = queued(documents).first(3)
    assert shown[0].text == "Zephyr swims to"
    assert texts(shown)[-1] == "Zephyr runs"
    assert shown[-1].new_words == {}


@pytest.mark.parametrize(
    "text", ["anna  runs to porto at 11:45", "Anna runs to Porto at 10:15", "Anna\u200b runs to Porto at 10:15"]
)
def test_what_the_pool_has_is_not_shown(text: str) -> None:
    assert queued([document(0, text, 0.1)]).first(9) == []


def test_a_newer_revision_takes_the_place_of_the_one_before() -> None:
    shown = queued([document(0, "Anna swims", 0.2), document(0, "Porto swims", 0.9)]).first(9)
    assert texts(shown) == ["Porto swims"]


def test_a_document_is_shown_by_its_sentences() -> None:
    text = "Ann met Bo. It was late."
    entities = (Entity(0, 3, "Ann", "person", 0.5), Entity(8, 10, "Bo", "person", 0.25))
    first = queued([TaggedDocument("d", text, entities, "p")]).first(1)[0]
    assert (first.document, first.start, first.text, first.doubt) == ("d", 0, "Ann met Bo.", 1.25)
    more = TaggedDocument("d", f"It was late. {text}", tuple(_moved(entity, 13) for entity in entities), "p")
    again = queued([more]).first(1)[0]
    assert (again.start, again.entities) == (13, entities)


# --- what a person has looked at --------------------------------------------------------------------------------------


def taught(text: str, *names: str) -> PoolSentence:
    return PoolSentence(
        text, tuple((Span(text.index(name), text.index(name) + len(name), name), "person") for name in names)
    )


@given(streams(), st.integers(0, 7))
def test_what_is_taught_or_dismissed_leaves_and_the_rest_is_valued_as_if_it_stood_above(
    documents: list[TaggedDocument], number: int
) -> None:
    shown = queued(documents, room=100).first(100)
    if not shown:
        return
    top = shown[0]
    dismissing, teaching = queued(documents, room=100), queued(documents, room=100)
    assert dismissing.dismiss(top.document, top.start)
    assert dismissing.first(100) == shown[1:]
    assert not dismissing.dismiss(top.document, top.start)
    teaching.learn(taught(top.text, *{entity.text for entity in top.entities}))
    assert teaching.first(100) == shown[1:]
    # Wherever it stands in the list: it is there no more, nor is one like it.
    chosen = shown[number % len(shown)]
    dismissing = queued(documents, room=100)
    dismissing.dismiss(chosen.document, chosen.start)
    for each in documents:
        dismissing.add(each)
    kinds = {without_numbers(text) for text in texts(dismissing.first(100))}
    assert without_numbers(chosen.text) not in kinds
    assert len(kinds) == len(shown) - 1


@given(streams())
def test_what_is_taught_is_no_news_in_others(documents: list[TaggedDocument]) -> None:
    queue = queued(documents, room=100)
    before = queue.first(100)
    queue.learn(taught("Zephyr swims", "Zephyr"))
    after = queue.first(100)
    assert [sentence.value for sentence in after[:1]] <= [sentence.value for sentence in before[:1]]
    assert all(not {"zephyr", "swims"} & sentence.new_words.keys() for sentence in after)


def test_what_is_withdrawn_may_be_shown_again() -> None:
    queue = queued([])
    sentence = taught("Zephyr runs", "Zephyr")
    queue.learn(sentence)
    queue.add(document(0, "Zephyr runs", 0.5))
    assert queue.first(9) == []
    queue.unlearn(sentence)
    queue.add(document(0, "Zephyr runs", 0.5))
    (shown,) = queue.first(9)
    assert list(shown.new_words) == ["zephyr"]


def test_of_a_long_document_the_whole_sentences_within_reach_are_looked_at() -> None:
    text = "Anna swims. Zephyr runs to Porto. Quill swims."
    queue = ReviewQueue(POOL, reach=text.index(" to Porto"))
    queue.add(TaggedDocument("d", text, (), "p"))
    assert texts(queue.first(9)) == ["Anna swims."]
    assert "d" in queue
    assert len(queue) == 1


def _moved(entity: Entity, by: int) -> Entity:
    return replace(entity, start=entity.start + by, end=entity.end + by)


def test_lines_of_a_log_are_told_apart_by_what_is_fixed_in_them() -> None:
    pool = replace(POOL, text_kind="log")
    lines = "\n".join(f"Failed password for root from 10.0.0.{number} port {number}22" for number in range(2, 30))
    shown = queued([TaggedDocument("d", f"{lines}\nConnection closed by 10.0.0.1", (), "p")], pool=pool).first(9)
    assert sorted(sentence.text.split(" ")[0] for sentence in shown) == ["Connection", "Failed"]
