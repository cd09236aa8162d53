"""Spans of a sentence, what is known of each, and the logistic rule that is made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.evidence.judges import Floats
from el4ner.proposing.boundary_probe import BEGIN, END, INSIDE
from el4ner.proposing.span_rule import FEATURES, MAX_WORDS, SpanRule, features_of, worth_asking
from tests.support.examples import examples

PLACES = st.tuples(st.integers(0, 19), st.integers(0, 19)).map(sorted).map(tuple)


def odds_of(words: int, seed: int) -> Floats:
    return (3 * np.random.default_rng(seed).standard_normal((words, 3))).astype(np.float32)


def log_probability(log_odds: float) -> float:
    return -math.log1p(math.exp(-log_odds))


@settings(deadline=None, max_examples=examples(60))
@given(
    words=st.integers(1, 20),
    seed=st.integers(0, 99),
    chunked=st.sets(PLACES, max_size=6),
    in_lexicon=st.sets(PLACES, max_size=6),
)
def test_features_are_those_of_every_short_span_and_of_what_is_proposed(
    words: int, seed: int, chunked: set[tuple[int, int]], in_lexicon: set[tuple[int, int]]
) -> None:
    log_odds = odds_of(words, seed)
    chunked, in_lexicon = ({(a, b) for a, b in one if b < words} for one in (chunked, in_lexicon))
    spans = features_of(log_odds, chunked, in_lexicon)
    expected = {(a, b) for a in range(words) for b in range(a, words) if b - a < MAX_WORDS} | chunked | in_lexicon
    found = list(zip(spans.first.tolist(), spans.last.tolist(), strict=True))
    assert len(found) == len(expected)
    assert set(found) == expected
    for (first, last), features in zip(found, spans.features, strict=True):
        inside = [log_probability(log_odds[word, INSIDE]) for word in range(first, last + 1)]
        assert features.tolist() == pytest.approx(
            [
                log_probability(log_odds[first, BEGIN]),
                log_probability(log_odds[last, END]),
                sum(inside) / len(inside),
                min(inside),
                float((first, last) in chunked),
                float((first, last) in in_lexicon),
                math.sqrt(len(inside)),
            ],
            abs=1e-4,
        )


def test_of_a_long_sentence_long_spans_are_only_those_that_are_proposed() -> None:
    spans = features_of(odds_of(60, 0), {(2, 2 + MAX_WORDS), (1, 50)}, {(1, 50)})
    long = spans.last - spans.first >= MAX_WORDS
    assert sorted(zip(spans.first[long].tolist(), spans.last[long].tolist(), strict=True)) == [
        (1, 50),
        (2, 2 + MAX_WORDS),
    ]
    assert len(spans.first) == sum(60 - more for more in range(MAX_WORDS)) + 2


def test_a_sentence_without_words_has_no_spans() -> None:
    spans = features_of(np.zeros((0, 3), np.float32), (), ())
    assert (len(spans.first), len(spans.last), spans.features.shape) == (0, 0, (0, FEATURES))


def test_certainty_is_no_infinity() -> None:
    log_odds = np.array([[900.0, -900.0, 90.0], [-900.0, 900.0, -90.0]], dtype=np.float32)
    assert np.isfinite(features_of(log_odds, (), ()).features).all()


def test_a_rule_is_made_from_the_likeliest_spans_and_from_all_that_are_proposed() -> None:
    log_odds = odds_of(12, 1)
    spans = features_of(log_odds, {(0, 11)}, {(3, 3)})
    rows = worth_asking(spans.features, 12)
    asked = set(zip(spans.first[rows].tolist(), spans.last[rows].tolist(), strict=True))
    assert {(0, 11), (3, 3)} <= asked
    assert 12 <= len(rows) <= 14
    rough = spans.features[:, :3].sum(axis=1)
    assert set(np.argsort(-rough, kind="stable")[:12].tolist()) <= set(rows.tolist())
    assert rows.tolist() == sorted(set(rows.tolist()))


def by_chance(weights: Floats, offset: float, spans: int, seed: int = 0) -> tuple[Floats, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((spans, FEATURES)).astype(np.float32)
    return features, rng.random(spans) < 1 / (1 + np.exp(-(features @ weights + offset)))


def test_the_rule_that_made_the_answers_is_found() -> None:
    weights = np.array([1.0, -0.5, 2.0, 0.0, 0.5, 1.5, -1.0], dtype=np.float32)
    features, right = by_chance(weights, -1.0, 20_000)
    rule = SpanRule.of(features, right)
    # The ridge draws the largest ones a little towards 0.
    assert rule.weights == pytest.approx(weights.tolist(), abs=0.15)
    assert rule.offset == pytest.approx(-1.0, abs=0.15)
    assert rule.log_odds(features) == pytest.approx(features @ np.array(rule.weights) + rule.offset, abs=1e-4)
    assert SpanRule.of(features, right) == rule


@pytest.mark.parametrize("right", [True, False])
def test_a_rule_of_one_answer_is_sure_of_it_within_bounds(right: bool) -> None:
    features, _ = by_chance(np.zeros(FEATURES, np.float32), 0.0, 50)
    odds = SpanRule.of(features, np.full(50, right)).log_odds(features)
    assert np.isfinite(odds).all()
    assert ((odds > 0) == right).all()
