"""A taught pool is a function of its files and its examples: the order in which they came is nowhere in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import PoolError
from el4ner.pools import Pool, PoolSentence
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import TaughtPool, taught_pool
from el4ner.types import Span

WORDS = ("Anna", "Porto", "Zephyr", "runs")
BASE = Pool(
    "p",
    {"person": "a human", "place": "where one can be"},
    (
        PoolSentence("Anna runs", ((Span(0, 4, "Anna"), "person"),)),
        PoolSentence("Porto runs", ()),
        PoolSentence("Anna runs", ()),
    ),
)


def example(text: str, *labels: str | None, at: int = 0, **types: str) -> PoolExample:
    """Words are labelled one after the other; None: none."""
    spans, start = [], 0
    for word, label in zip(text.split(" "), labels, strict=False):
        if label is not None:
            spans.append((Span(start, start + len(word), word), label))
        start += len(word) + 1
    return PoolExample(text, tuple(spans), types, "t", at)


@st.composite
def examples(draw: st.DrawFn) -> PoolExample:
    text = " ".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3)))
    labels = draw(st.lists(st.sampled_from(["person", "place", "thing", "idea", None]), max_size=3))
    types = draw(st.dictionaries(st.sampled_from(["thing", "idea", "person"]), st.sampled_from(["x", "y"]), max_size=2))
    control = draw(st.sampled_from(["", "\u200b"]))
    return replace(example(text, *labels, at=draw(st.integers(0, 3)), **types), text=text + control)


def by_key(taught: Sequence[PoolExample]) -> list[PoolExample]:
    """As readers of the topic have them: of one key the last."""
    return list({each.digest: each for each in taught}.values())


def shown(taught: TaughtPool) -> object:
    return taught.pool, taught.pool.fingerprint, taught.examples, taught.left_out


@given(st.lists(examples(), max_size=8).map(by_key).flatmap(lambda own: st.tuples(st.just(own), st.permutations(own))))
def test_the_same_examples_in_any_order_are_the_same_pool(both: tuple[list[PoolExample], list[PoolExample]]) -> None:
    first, second = both
    assert shown(taught_pool(BASE, first)) == shown(taught_pool(BASE, second))


@given(st.lists(examples(), max_size=8).map(by_key))
def test_what_is_in_use_is_in_the_pool_and_what_is_not_has_a_reason(own: list[PoolExample]) -> None:
    taught = taught_pool(BASE, own)
    texts = [sentence.text for sentence in taught.pool.sentences]
    for used in taught.sentences:
        assert taught.pool.sentences[texts.index(used.text)] == used
        assert texts.count(used.text) == 1
    assert all(left_out.reason for left_out in taught.left_out)
    assert len({one.sentence.text for one in own}) == len(taught.examples) + len(taught.left_out)
    assert list(taught.pool.types)[:2] == list(BASE.types)
    assert taught.pool.lineage == BASE.fingerprint
    assert (taught.pool.fingerprint == BASE.fingerprint) == (taught.pool == BASE)


@given(st.lists(examples(), max_size=6).map(by_key))
def test_withdrawing_all_of_them_gives_the_files_again(own: list[PoolExample]) -> None:
    assert taught_pool(BASE, own).earlier(0).pool is BASE


def test_an_example_replaces_the_sentence_of_its_text_in_its_place() -> None:
    taught = taught_pool(BASE, [example("Porto runs", "place")])
    assert [sentence.text for sentence in taught.pool.sentences] == ["Anna runs", "Porto runs", "Anna runs"]
    assert taught.pool.sentences[1].spans == ((Span(0, 5, "Porto"), "place"),)


def test_a_text_that_the_files_have_twice_is_there_once() -> None:
    pool = taught_pool(BASE, [example("Anna runs")]).pool
    assert [sentence.text for sentence in pool.sentences] == ["Anna runs", "Porto runs"]
    assert not pool.sentences[0].spans


def test_confirming_what_the_files_say_changes_nothing() -> None:
    assert taught_pool(BASE, [example("Porto runs")]).pool is BASE


def test_of_two_examples_of_one_text_the_later_counts() -> None:
    # The texts differ in what no document is read with.
    earlier, later = (
        example("Zephyr runs", "person", at=1),
        replace(example("Zephyr runs", at=2), text="Zephyr runs\u200b"),
    )
    taught = taught_pool(BASE, [later, earlier])
    assert taught.examples == (later,)
    assert taught.pool.sentences[-1] == PoolSentence("Zephyr runs", ())


def test_a_new_type_comes_with_its_description_and_the_last_one_counts() -> None:
    first = example("Zephyr runs", "thing", at=1, thing="old")
    second = example("Zephyr Porto", "thing", at=2, thing="new", person="not a human")
    assert dict(taught_pool(BASE, [second, first]).pool.types) == {**BASE.types, "thing": "new"}


def test_an_example_with_a_type_that_nobody_declares_waits_for_who_does() -> None:
    waiting = example("Zephyr runs", "thing")
    taught = taught_pool(BASE, [waiting])
    assert taught.pool is BASE
    (left_out,) = taught.left_out
    assert left_out.example == waiting
    assert "type 'thing' is not declared" in left_out.reason
    declared = taught_pool(BASE, [waiting, example("Porto", thing="something")])
    assert declared.examples[-1] == waiting or declared.examples[0] == waiting
    assert not declared.left_out


@pytest.mark.parametrize("text", ["", " ", "\n", "\u200b"])
def test_nothing_is_no_example(text: str) -> None:
    with pytest.raises(PoolError, match=r"empty|nothing but"):
        PoolExample(text, ())


@given(
    st.lists(
        st.sampled_from(["a", "b", " ", "[", "m", "\x1b", "\x07", "\u202e", "\u200b", "\ufeff", "\xa0"]), min_size=1
    ),
    st.integers(0, 20),
    st.integers(1, 5),
)
def test_what_may_be_an_example_may_be_in_a_pool(chars: list[str], start: int, length: int) -> None:
    """A worker that is told of one that may not would end, and not start again."""
    text = "".join(chars)
    surface = text[start : start + length]
    try:
        taught = PoolExample(text, ((Span(start, start + len(surface), surface), "person"),))
    except PoolError:
        return
    assert taught_pool(BASE, [taught]).examples == (taught,)


@pytest.mark.parametrize("surface", ["\x07 ", "\x1b[0m ", " \ufeff"])
def test_white_space_and_control_characters_are_no_entity(surface: str) -> None:
    span = Span(2, 2 + len(surface), surface)
    with pytest.raises(PoolError, match="nothing but control characters"):
        PoolExample(f"a {surface}b", ((span, "person"),))
    with pytest.raises(PoolError, match="nothing but control characters"):
        Pool("p", {"person": "a human"}, (PoolSentence(f"a {surface}b", ((span, "person"),)),))
