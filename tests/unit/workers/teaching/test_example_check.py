"""An example before it is taught: it stands by itself, says what it would do, and what the pool has otherwise."""

from __future__ import annotations

import pytest

from el4ner.errors import PoolError
from el4ner.pools import Pool, PoolSentence
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import taught_pool
from el4ner.types import Span
from workers.teaching.example_check import check_example

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
