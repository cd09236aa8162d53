"""Parts of a pool: nested, drawn by seeds, with all types; and what is said of sizes that there cannot be."""

from itertools import pairwise

import pytest

from el4ner.evaluation import EvaluationError
from el4ner.evaluation.pool_subsets import read_sizes, subsets_of
from el4ner.pools.pool import Pool, PoolSentence
from el4ner.types import Span

TYPES = {"person": "a person", "place": "a place", "ship": "a ship"}
SENTENCES = tuple(
    PoolSentence(f"Ada saw harbour {number}.", ((Span(0, 3, "Ada"), "person"),) if number % 2 else ())
    for number in range(30)
)
POOL = Pool("made", TYPES, SENTENCES)


def test_a_smaller_part_of_a_seed_is_in_its_larger_one_in_the_pools_order() -> None:
    by_seed: dict[int, list[Pool]] = {}
    for subset in subsets_of(POOL, (1, 5, 12, None), 3):
        by_seed.setdefault(subset.seed, []).append(subset.pool)
    assert {seed: [len(pool.sentences) for pool in pools] for seed, pools in by_seed.items()} == {
        0: [1, 5, 12, 30],
        1: [1, 5, 12],
        2: [1, 5, 12],
    }
    for pools in by_seed.values():
        for smaller, larger in pairwise(pools):
            assert set(smaller.sentences) < set(larger.sentences)
        places = [SENTENCES.index(sentence) for sentence in pools[-1].sentences]
        assert places == sorted(places)


def test_seeds_draw_different_parts_and_the_same_ones_again() -> None:
    first, again = (subsets_of(POOL, (12,), 3) for _ in range(2))
    assert len({subset.pool.fingerprint for subset in first}) == 3
    assert [subset.pool.fingerprint for subset in first] == [subset.pool.fingerprint for subset in again]
    assert [subset.pool.fingerprint for subset in subsets_of(POOL, (5, 12), 2) if subset.size == 12] == [
        subset.pool.fingerprint for subset in first[:2]
    ], "whatever else is asked for"


def test_types_stay_and_it_is_said_which_have_no_span() -> None:
    for subset in subsets_of(POOL, (1, 12), 2):
        assert subset.pool.types == TYPES
        assert set(subset.missing) == {"place", "ship"} | (set() if subset.labelled else {"person"})
        assert subset.labelled == sum(len(sentence.spans) for sentence in subset.pool.sentences)


def test_the_whole_pool_is_measured_once_by_whatever_name() -> None:
    for sizes in ((30,), (None,), (30, None)):
        (whole,) = subsets_of(POOL, sizes, 4)
        assert whole.pool == POOL
        assert whole.seed == 0


@pytest.mark.parametrize(
    ("text", "sizes"), [("5,10,all", (5, 10, None)), (" 5 , 7 ", (5, 7)), ("all", (None,)), ("1", (1,))]
)
def test_sizes_are_read(text: str, sizes: tuple[int | None, ...]) -> None:
    assert read_sizes(text) == sizes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no size"),
        ("5,,10", "'' is no size"),
        ("5,ten", "'ten' is no size of a pool: give numbers of sentences"),
        ("-5", "'-5' is no size"),
        ("5.5", "'5.5' is no size"),
        ("٥", "'٥' is no size"),
        ("0,5", "a pool of 0 sentences shows nothing: the smallest size is 1"),
        ("10,5", "'10,5': sizes ascend"),
        ("5,5", "each once"),
        ("all,5", "all is the last one"),
        ("all,all", "all is the last one"),
    ],
)
def test_sizes_that_cannot_be_are_refused(text: str, said: str) -> None:
    with pytest.raises(EvaluationError, match=said.replace("(", r"\(")):
        read_sizes(text)


def test_a_size_larger_than_the_pool_is_refused() -> None:
    with pytest.raises(EvaluationError, match="has 30 sentences, fewer than 31, 100: leave that out; all is the whole"):
        subsets_of(POOL, (5, 31, 100, None), 2)
