"""An example before it is taught: it stands by itself, says what it would do, and what the pool has otherwise."""

from __future__ import annotations

import pytest

from el4ner.errors import PoolError
from el4ner.pools import Pool, PoolSentence
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.types import Span
from workers.teaching.example_check import check_example, check_examples

BASE = Pool("p", {"person": "a human"}, (PoolSentence("Anna ran.", ((Span(0, 4, "Anna"), "person"),)),))


def labelled(text: str, word: str, label: str, types: dict[str, str] | None = None, at: int = 1) -> PoolExample:
    start = text.index(word)
    return PoolExample(text, ((Span(start, start + len(word), word), label),), types or {}, "ada", at)


def test_it_says_what_it_would_change() -> None:
    checked = check_example("p", taught_pool(BASE, []), labelled("Zorko ran.", "Zorko", "person"))
    assert checked.changes
    assert checked.before is BASE
    assert checked.after.fingerprint == taught_pool(BASE, [checked.example]).pool.fingerprint
    assert (str(checked.key), checked.replaces) == (f"p:{checked.example.digest}", None)


def test_confirming_changes_nothing() -> None:
    assert not check_example("p", taught_pool(BASE, []), labelled("Anna ran.", "Anna", "person")).changes


def test_a_type_that_only_other_examples_declare_is_declared_again() -> None:
    """So that withdrawing one of them costs the other nothing."""
    first = labelled("Halcyon sells.", "Halcyon", "product", {"product": "what is sold"})
    checked = check_example("p", taught_pool(BASE, [first]), labelled("Zephyr sells.", "Zephyr", "product", at=2))
    assert dict(checked.example.types) == {"product": "what is sold"}
    alone = taught_pool(BASE, [checked.example])
    assert not alone.left_out


def test_a_type_that_nobody_declares_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(PoolError, match="type 'persn' is not one of the pool's; nearest: 'person'") as raised:
        check_example("p", taught_pool(BASE, []), labelled("Zorko ran.", "Zorko", "persn"))
    assert "line of description" in str(raised.value)


def test_what_it_replaces_and_where_the_pool_says_otherwise() -> None:
    before = labelled("Anna sang.", "Anna", "person")
    checked = check_example("p", taught_pool(BASE, [before]), PoolExample("Anna sang.", (), {}, "bo", 2))
    assert checked.replaces == before
    assert [each.message for each in checked.disagreements] == [
        "the pool calls 'Anna' person once, no entity never; the example: no entity"
    ]


def test_several_at_once_make_the_pool_that_they_make_one_by_one() -> None:
    first = labelled("Halcyon sells.", "Halcyon", "product", {"product": "what is sold"})
    examples = [
        labelled("Zephyr sells.", "Zephyr", "product", at=2),
        first,
        labelled("Bo sang.", "Bo", "person", at=3),
        PoolExample("Bo sang.", (), {}, "ada", 4),
    ]
    checked, after = check_examples("p", taught_pool(BASE, []), [(str(at), each) for at, each in enumerate(examples)])
    assert dict(checked[0].example.types) == {"product": "what is sold"}, "whoever declares it"
    assert (
        after.pool.fingerprint
        == taught_pool(BASE, [*(each.example for each in checked[:2]), examples[3]]).pool.fingerprint
    )
    assert [str(each.key) for each in checked] == [f"p:{each.digest}" for each in examples]


def test_several_at_once_disagree_with_the_pool_and_with_each_other() -> None:
    place = {"place": "where one can be"}
    examples = [
        labelled("Anna is a town.", "Anna", "place", place, at=2),
        labelled("Anna was a town.", "Anna", "place", place, at=3),
        labelled("Bo ran.", "Bo", "person", at=4),
        labelled("Bo is a town.", "Bo", "place", place, at=5),
        labelled("Bo was a town.", "Bo", "place", place, at=6),
    ]
    checked, _ = check_examples("p", taught_pool(BASE, []), [("x", each) for each in examples])
    assert [[each.message for each in one.disagreements] for one in checked] == [
        ["the pool calls 'Anna' person once, place never; the example: place"],
        ["the pool calls 'Anna' person once, place never; the example: place"],
        ["the pool calls 'Bo' place twice, person never; the example: person"],
        [],
        [],
    ]


def test_of_several_the_one_that_cannot_be_taught_is_named() -> None:
    examples = [("file:1", labelled("Bo ran.", "Bo", "person")), ("file:2", labelled("Zoe ran.", "Zoe", "persn"))]
    with pytest.raises(PoolError, match="file:2: type 'persn'"):
        check_examples("p", taught_pool(BASE, []), examples)
