"""What labelled spans say of a new one: neighbours and prototypes, on vectors that can be reasoned about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.evidence.judges import NEIGHBOURS, PRIOR_SHARE, Floats, Prototypes, log_softmax, neighbours

EAST, NORTH = (1.0, 0.0), (0.0, 1.0)


def unit(rows: Any) -> Floats:
    found = np.asarray(rows, dtype=np.float32)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def some(seed: int, count: int, dimensions: int = 4) -> Floats:
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)))


def labels(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(values, dtype=np.int64)


@given(st.integers(0, 99), st.integers(0, 5), st.integers(0, 80), st.integers(1, 5), st.booleans())
def test_votes_of_neighbours_are_probabilities(seed: int, asked: int, known: int, kinds: int, leave_out: bool) -> None:
    rng = np.random.default_rng(seed)
    apart = (rng.integers(0, 3, asked), rng.integers(0, 3, known)) if leave_out else None
    said = neighbours(some(seed, asked), some(seed + 1, known), rng.integers(0, kinds, known), kinds, apart=apart)
    assert said.shape == (asked, kinds)
    assert np.exp(said).sum(axis=1) == pytest.approx(np.ones(asked), abs=1e-5)
    assert np.isfinite(said).all(), "nothing is impossible"


def test_the_most_similar_spans_decide_however_many_others_there_are() -> None:
    known = unit([EAST] * 200 + [NORTH] * 2)
    said = neighbours(unit([(0.1, 1.0), (1.0, 0.1)]), known, labels(*[0] * 200, 1, 1), 3)
    assert said.argmax(axis=1).tolist() == [1, 0]
    assert np.exp(said[0, 1]) > 0.9


def test_more_than_so_many_neighbours_do_not_vote() -> None:
    near, far = NEIGHBOURS, 500
    known = unit([EAST] * near + [(1.0, 0.01)] * far)
    said = neighbours(unit([EAST]), known, labels(*[0] * near, *[1] * far), 2)
    frequencies = (np.asarray([near, far]) + 1) / (near + far + 2)
    expected = (np.asarray([1.0, 0.0]) + PRIOR_SHARE * frequencies) / (1 + PRIOR_SHARE)
    assert np.exp(said[0]) == pytest.approx(expected, abs=1e-4)


def test_a_span_of_the_own_sentence_has_no_vote() -> None:
    known = unit([EAST, NORTH])
    alone = neighbours(unit([EAST]), known, labels(0, 1), 2)
    apart = neighbours(unit([EAST]), known, labels(0, 1), 2, apart=(labels(7), labels(7, 8)))
    assert alone.argmax() == 0
    assert apart.argmax() == 1
    assert np.exp(apart[0, 1]) > 0.95


def test_where_nobody_may_vote_the_types_frequencies_speak() -> None:
    own = neighbours(unit([EAST]), unit([EAST] * 3), labels(0, 0, 1), 3, apart=(labels(7), labels(7, 7, 7)))
    assert np.exp(own[0]) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    empty = neighbours(some(0, 2), np.zeros((0, 4), np.float32), labels(), 3)
    assert np.exp(empty) == pytest.approx(np.full((2, 3), 1 / 3))


def test_every_query_is_answered_as_if_it_were_alone() -> None:
    known, kinds = some(1, 50), np.random.default_rng(2).integers(0, 3, 50)
    queries = some(3, 2_100)
    said = neighbours(queries, known, kinds, 3)
    for row in (0, 2_047, 2_048, 2_099):
        assert said[row] == pytest.approx(neighbours(queries[row : row + 1], known, kinds, 3)[0], abs=1e-5)


def test_prototypes_recover_types_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    spans = rng.standard_normal((300, 16)).astype(np.float32) * 0.3
    spans[np.arange(300), truth] += 1.0
    rule = Prototypes.of(unit(spans[:200]), truth[:200], 3)
    said = rule.of_spans(unit(spans[200:]))
    assert (said.argmax(axis=1) == truth[200:]).mean() > 0.95
    assert np.exp(said).sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)


def test_a_direction_in_which_all_types_scatter_tells_nothing() -> None:
    """Prototypes weigh directions by how much types scatter in them; similarity alone does not."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    spans = rng.standard_normal((400, 6)).astype(np.float32) * 3
    spans[:, 1] = 2 * truth + 0.1 * rng.standard_normal(400)
    known, asked = spans[:200], spans[200:]
    by_prototypes = Prototypes.of(known, truth[:200], 2).of_spans(asked)
    by_neighbours = neighbours(unit(asked), unit(known), truth[:200], 2)
    right = [(said.argmax(axis=1) == truth[200:]).mean() for said in (by_prototypes, by_neighbours)]
    assert right[0] > 0.9 > right[1]


def test_a_type_without_spans_is_unlikely_and_not_impossible() -> None:
    spans = unit([EAST, EAST, (1.0, 0.1), NORTH, NORTH, (0.1, 1.0)])
    said = Prototypes.of(spans, labels(0, 0, 0, 1, 1, 1), 3).of_spans(unit([EAST, NORTH]))
    assert said.argmax(axis=1).tolist() == [0, 1]
    assert (said.argmin(axis=1) == [1, 0]).all(), "the unseen type lies between the others"
    assert np.isfinite(said).all()


def test_without_any_span_prototypes_know_nothing() -> None:
    said = Prototypes.of(np.zeros((0, 4), np.float32), labels(), 3).of_spans(some(0, 2))
    assert np.exp(said) == pytest.approx(np.full((2, 3), 1 / 3))


@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 4))
def test_prototypes_of_any_spans_give_probabilities(seed: int, known: int, kinds: int) -> None:
    found = np.random.default_rng(seed).integers(0, kinds, known)
    said = Prototypes.of(some(seed, known), found, kinds).of_spans(some(seed + 1, 3))
    assert np.exp(said).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-4)


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_log_softmax_is_the_log_of_a_distribution(rows: list[list[float]]) -> None:
    said = log_softmax(np.asarray(rows, np.float32))
    assert np.exp(said).sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert (said <= 0).all()
