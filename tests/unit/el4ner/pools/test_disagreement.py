"""Whether an example agrees with the pool: by the other sentences alone, and never about what these do not have."""

from __future__ import annotations

import pytest

from el4ner.pools import Pool, PoolSentence
from el4ner.pools.disagreement import disagreements
from el4ner.pools.examples import PoolExample
from el4ner.types import Span


def sentence(text: str, **labels: str) -> PoolSentence:
    spans = [(Span(text.index(word), text.index(word) + len(word), word), label) for word, label in labels.items()]
    return PoolSentence(text, tuple(sorted(spans)))


def example(text: str, **labels: str) -> PoolExample:
    return PoolExample(text, sentence(text, **labels).spans)


POOL = Pool(
    "p",
    {"organization": "a body", "location": "a place", "person": "a human"},
    (
        sentence("Jordan rose.", Jordan="organization"),
        sentence("Shares of Jordan fell.", Jordan="organization"),
        sentence("He went to Jordan.", Jordan="location"),
        sentence("Michael Jordan scored.", **{"Michael Jordan": "person"}),
        sentence("The apple fell."),
        sentence("An apple a day."),
    ),
)


def test_the_pool_says_how_often_it_has_the_name_as_what() -> None:
    (only,) = disagreements(example("The king of Jordan spoke.", Jordan="person"), POOL)
    assert (only.says, dict(only.counts)) == ("person", {"organization": 2, "location": 1})
    assert only.message == (
        "the pool calls 'Jordan' organization twice, location once, person never; the example: person"
    )


def test_a_name_that_is_left_out_disagrees_too() -> None:
    (only,) = disagreements(example("Jordan spoke."), POOL)
    assert only.says is None
    assert "no entity never; the example: no entity" in only.message


def test_what_the_pool_has_as_no_entity_disagrees() -> None:
    (only,) = disagreements(example("The apple spoke.", apple="person"), POOL)
    assert dict(only.counts) == {None: 2}


@pytest.mark.parametrize(
    "agreeing",
    [
        example("Jordan closed higher.", Jordan="organization"),
        example("Zorko spoke.", Zorko="person"),  # nobody has it
        example("Nothing here."),
        example("Jordan rose.", Jordan="location"),  # its own sentence has no say, and the others are even
        example("Michael Jordan spoke.", **{"Michael Jordan": "person"}),
    ],
    ids=lambda each: each.text,
)
def test_what_agrees_is_no_question(agreeing: PoolExample) -> None:
    assert disagreements(agreeing, POOL) == []


def test_the_examples_own_sentence_does_not_count() -> None:
    own = example("Shares of Zorko fell.", Zorko="organization")
    pool = Pool("p", POOL.types, (*POOL.sentences, own.sentence))
    assert disagreements(example(own.text, Zorko="location"), pool) == []


def test_letter_case_makes_no_other_name() -> None:
    assert disagreements(example("JORDAN spoke.", JORDAN="person"), POOL)


@pytest.mark.parametrize("written", ["Zoë Quux", "zoë quux", "Zoe\u0308 Quux", "Zoë\nQuux", '"Zoë Quux"'])
def test_however_a_name_is_written_it_is_the_same_one(written: str) -> None:
    pool = Pool(
        "p", {"person": "a human", "place": "a place"}, (sentence(f"So {written} spoke.", **{written: "place"}),)
    )
    name = written if written.startswith('"') else "Zoë Quux"
    (found,) = disagreements(example(f"Then {name} ran.", **{name: "person"}), pool)
    assert dict(found.counts) == {"place": 1}
