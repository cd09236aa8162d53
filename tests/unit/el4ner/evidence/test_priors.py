"""A stream's mix of types from unlabelled answers, and answers as that mix would have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from el4ner.evidence.judges import Floats, Ints, log_softmax
from el4ner.evidence.priors import (
    LARGEST_RATIO,
    divergence,
    estimated_mix,
    pool_mix,
    reweighted,
)

Shares = npt.NDArray[np.float64]
TYPES = st.integers(1, 6)
SCORES = st.floats(-30, 30, width=32)


def answers_of(types: int) -> st.SearchStrategy[Floats]:
    """Log-probabilities ``[spans, types + none]``, also of no span at all."""
    shape = st.tuples(st.integers(0, 40), st.just(types + 1))
    drawn: Any = hnp.arrays(np.float32, shape, elements=SCORES)
    return drawn.map(log_softmax)  # type: ignore[no-any-return]


def mixes_of(types: int) -> st.SearchStrategy[Shares]:
    counts = hnp.arrays(np.float64, types, elements=st.floats(0.5, 500))
    return counts.map(lambda drawn: drawn / drawn.sum())


@st.composite
def answers_and_pool(draw: st.DrawFn) -> tuple[Floats, Shares]:
    types = draw(TYPES)
    return draw(answers_of(types)), draw(mixes_of(types))


def made_stream(mix: Shares, *, spans: int, strength: float, pool: Shares, seed: int) -> tuple[Floats, Ints]:
    """Candidates of which a third are entities of types by ``mix``, and what a classifier says of them that knows how
    each type looks and takes ``pool`` for the mix: noisy, and calibrated under that mix."""
    rng = np.random.default_rng(seed)
    kinds = len(mix) + 1
    labels = rng.choice(kinds, spans, p=[*(mix / 3), 2 / 3])
    looks = rng.standard_normal((spans, kinds))
    looks[np.arange(spans), labels] += strength
    prior = np.log([*(pool / 3), 2 / 3])
    return log_softmax((looks * strength + prior).astype(np.float32)), labels


@given(answers_and_pool())
def test_a_mix_adds_up_and_stays_within_its_bounds(drawn: tuple[Floats, Shares]) -> None:
    log_probabilities, pool = drawn
    mix = estimated_mix(log_probabilities, pool)
    assert mix.sum() == pytest.approx(1)
    assert (mix >= pool / LARGEST_RATIO * (1 - 1e-9)).all()
    assert (mix <= pool * LARGEST_RATIO * (1 + 1e-9)).all()


@given(answers_and_pool(), st.randoms(use_true_random=False))
def test_the_order_of_the_types_makes_no_difference(drawn: tuple[Floats, Shares], random: Any) -> None:
    log_probabilities, pool = drawn
    order = list(range(len(pool)))
    random.shuffle(order)
    turned = estimated_mix(log_probabilities[:, [*order, len(pool)]], pool[order])
    assert turned == pytest.approx(estimated_mix(log_probabilities, pool)[order], abs=1e-5)


@given(TYPES.flatmap(mixes_of), st.integers(0, 50))
def test_a_stream_that_has_the_pools_mix_keeps_it(pool: Shares, spans: int) -> None:
    """Whoever sees nothing in the text answers with the pool's mix; so does whoever sees all, over as many entities."""
    blind = np.tile(np.log([*(pool / 2), 0.5]).astype(np.float32), (spans, 1))
    assert estimated_mix(blind, pool) == pytest.approx(pool, abs=1e-5)


def test_the_mix_of_a_stream_is_found_where_the_answers_are_calibrated() -> None:
    pool, mix = np.array([0.7, 0.25, 0.05]), np.array([0.2, 0.3, 0.5])
    log_probabilities, _ = made_stream(mix, spans=9_000, strength=3.5, pool=pool, seed=3)
    found = estimated_mix(log_probabilities, pool)
    assert found == pytest.approx(mix, abs=0.08), "held towards the pool, by 200 entities against 3,000"


def test_a_few_answers_hardly_move_the_mix() -> None:
    pool = np.array([0.9, 0.1])
    sure_of_the_rare_type = log_softmax(np.tile(np.array([0, 9, 0], np.float32), (10, 1)))
    assert estimated_mix(sure_of_the_rare_type, pool)[1] == pytest.approx((0.1 * 200 + 10) / 210, abs=0.01)


def test_answers_get_better_where_only_the_mix_is_another() -> None:
    pool, mix = np.array([0.7, 0.25, 0.05]), np.array([0.1, 0.3, 0.6])
    log_probabilities, labels = made_stream(mix, spans=6_000, strength=1.2, pool=pool, seed=5)
    corrected = reweighted(log_probabilities, estimated_mix(log_probabilities, pool) / pool)
    entities = labels < len(pool)

    def right(answers: Floats) -> float:
        return float((answers[entities, :-1].argmax(axis=1) == labels[entities]).mean())

    assert right(corrected) > right(log_probabilities) + 0.1


@given(answers_and_pool(), st.data())
def test_reweighted_answers_add_up_and_say_the_same_about_none(
    drawn: tuple[Floats, Shares], data: st.DataObject
) -> None:
    log_probabilities, pool = drawn
    ratios = data.draw(mixes_of(len(pool))) / pool
    answers = reweighted(log_probabilities, ratios)
    assert np.exp(answers.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert (answers[:, -1] == log_probabilities[:, -1]).all()


def test_reweighting_is_bayes_rule_among_the_types() -> None:
    answers = reweighted(np.log(np.array([[0.6, 0.2, 0.2]], np.float32)), np.array([0.5, 1.5]))
    assert np.exp(answers[0]) == pytest.approx([0.4, 0.4, 0.2], abs=1e-6)


@given(TYPES.flatmap(lambda types: st.tuples(mixes_of(types), mixes_of(types))))
def test_a_divergence_is_symmetric_and_between_0_and_1(both: tuple[Shares, Shares]) -> None:
    first, second = both
    assert divergence(first, second) == pytest.approx(divergence(second, first), abs=1e-9)
    assert 0 <= divergence(first, second) <= 1
    assert divergence(first, first) == pytest.approx(0, abs=1e-9)


def test_mixes_that_share_no_type_are_one_bit_apart() -> None:
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)


def test_a_pools_mix_is_of_its_entities_and_has_every_type() -> None:
    none = 3
    shares = pool_mix(np.array([0, 0, 0, 1, none, none, none]), none + 1)
    assert shares == pytest.approx(np.array([3.5, 1.5, 0.5]) / 5.5)
