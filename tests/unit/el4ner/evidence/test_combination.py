"""Several judges into one: what each is worth, what is reported, and what a confidence means."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.evidence.combination import Combination, Decisions, decide, fit, fit_confidence
from el4ner.evidence.judges import Floats, Ints, log_softmax
from el4ner.evidence.leave_one_out import Figures, Sample, with_threshold
from tests.support.examples import examples

KINDS = 3
"""Two types and none."""
NONE = KINDS - 1


def judge(truth: Ints, strength: float, seed: int, *, kinds: int = KINDS) -> Floats:
    """Log-probabilities of a judge who sees the truth through noise: strength 0 sees nothing."""
    scores = np.random.default_rng(seed).standard_normal((len(truth), kinds)).astype(np.float32)
    scores[np.arange(len(truth)), truth] += strength
    return log_softmax(scores)


def truths(count: int = 400, seed: int = 0) -> Ints:
    return np.random.default_rng(seed).integers(0, KINDS, count)


def together(*judges: Floats) -> Floats:
    return np.stack(judges, axis=1)


def sample(labels: Ints, *, gold: int | None = None) -> Sample:
    """Every span in a sentence of its own."""
    places = [(number, 0, 1) for number in range(len(labels))]
    return Sample(places, labels, int((labels != NONE).sum()) if gold is None else gold, np.ones(len(labels)))


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 30))
def test_no_judge_has_a_negative_weight_and_the_sum_is_a_distribution(seed: int, judges: int, spans: int) -> None:
    truth = truths(spans, seed)
    evidence = together(*(judge(truth, number - 1.0, seed + number) for number in range(judges)))
    found = fit(evidence, truth)
    assert all(weight >= 0 for weight in found.weights)
    assert np.exp(found.log_probabilities(evidence)).sum(axis=1) == pytest.approx(np.ones(spans), abs=1e-4)


def test_a_judge_that_knows_nothing_gets_about_nothing() -> None:
    truth = truths()
    found = fit(together(judge(truth, 0.0, 1), judge(truth, 2.0, 2)), truth)
    assert found.weights[0] < 0.1 * found.weights[1]


def test_a_judge_that_is_always_wrong_is_not_believed_the_other_way_round() -> None:
    truth = truths()
    assert fit(together(judge(truth, -3.0, 1), judge(truth, 2.0, 2)), truth).weights[0] == 0


def test_a_judge_that_is_always_right_dominates() -> None:
    truth = truths()
    evidence = together(judge(truth, 1.0, 1), judge(truth, 30.0, 2))
    assert (fit(evidence, truth).decide(evidence).chosen == truth).all()


def test_two_judges_know_more_than_one() -> None:
    truth = truths()
    one, other = judge(truth, 1.5, 1), judge(truth, 1.5, 2)
    right = [
        (fit(evidence, truth).decide(evidence).chosen == truth).mean()
        for evidence in (together(one), together(other), together(one, other))
    ]
    assert right[2] > max(right[:2])


def test_of_judges_that_say_the_same_neither_is_preferred() -> None:
    truth = truths()
    same = judge(truth, 2.0, 1)
    found = fit(together(same, same), truth)
    assert found.weights[0] == pytest.approx(found.weights[1], abs=1e-3)


def test_what_judges_know_of_none_too_little_the_bias_adds() -> None:
    truth = np.asarray([NONE] * 380 + [0, 1] * 10)
    evidence = together(judge(np.asarray(truth), 0.0, 1))
    found = fit(evidence, truth)
    assert found.none_bias > 1
    assert (found.decide(evidence).chosen == NONE).all()


def test_a_higher_threshold_reports_less_and_changes_nothing_else() -> None:
    truth = truths()
    evidence = together(judge(truth, 1.0, 1))
    reported: list[set[int]] = []
    for threshold in (-2.0, 0.0, 1.0):
        combination = Combination((1.0,), threshold=threshold)
        decisions = combination.decide(evidence)
        likely = np.exp(combination.log_probabilities(evidence))
        rows = np.flatnonzero(decisions.chosen != NONE)
        assert (decisions.chosen[rows] == likely[rows, :NONE].argmax(axis=1)).all(), "the likeliest type"
        assert decisions.confidence[rows] == pytest.approx(likely[rows, decisions.chosen[rows]], abs=1e-5)
        reported.append(set(rows.tolist()))
    assert reported[0] > reported[1] > reported[2]


def test_a_margin_is_how_far_the_choice_is_ahead() -> None:
    likely = np.log(np.asarray([[0.7, 0.2, 0.1], [0.1, 0.45, 0.45], [0.0001, 0.0001, 0.9998]], np.float32))
    decisions = decide(likely, 0.0)
    assert decisions.chosen.tolist() == [0, 1, 2]
    assert decisions.margin == pytest.approx([0.5, 0.0, 0.9997], abs=1e-4)
    assert decisions.confidence == pytest.approx([0.7, 0.45, 0.9998], abs=1e-4)


def test_even_weights_are_the_geometric_mean_of_the_judges() -> None:
    evidence = np.log(np.asarray([[[0.8, 0.1, 0.1], [0.2, 0.4, 0.4]]], np.float32))
    expected = np.sqrt(np.asarray([0.16, 0.04, 0.04]))
    found = np.exp(Combination.even(2).log_probabilities(evidence))[0]
    assert found == pytest.approx(expected / expected.sum(), abs=1e-5)


def outcomes(probability: npt.NDArray[Any], slope: float, offset: float) -> npt.NDArray[np.bool_]:
    """Draws that are right as often as slope and offset make of the probabilities."""
    logit = np.log(probability) - np.log1p(-probability)
    likely = 1 / (1 + np.exp(-(slope * logit + offset)))
    return np.asarray(np.random.default_rng(5).random(len(probability)) < likely)


def test_confidences_of_a_shy_ensemble_are_put_right() -> None:
    probability = np.random.default_rng(4).uniform(0.2, 0.9, 4_000).astype(np.float32)
    right = outcomes(probability, 1.5, 1.0)
    found = fit_confidence(Combination((1.0,)), probability, right)
    assert found.slope == pytest.approx(1.5, abs=0.2)
    assert found.offset == pytest.approx(1.0, abs=0.2)
    confidence = found.confidence(probability)
    for low, high in ((0.3, 0.6), (0.6, 0.8), (0.8, 0.9), (0.9, 1.0)):
        inside = (confidence >= low) & (confidence < high)
        assert right[inside].mean() == pytest.approx(confidence[inside].mean(), abs=0.06)
        assert abs(right[inside].mean() - probability[inside].mean()) > 0.06, "they were not"


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=30))
def test_a_likelier_span_is_never_less_confident(seen: list[tuple[float, bool]]) -> None:
    probability = np.asarray([one for one, _ in seen], np.float32)
    found = fit_confidence(Combination((1.0,)), probability, np.asarray([right for _, right in seen], bool))
    ascending = found.confidence(np.linspace(0, 1, 50, dtype=np.float32))
    assert (np.diff(ascending) >= 0).all()
    assert ((ascending >= 0) & (ascending <= 1)).all()


def test_where_nothing_was_reported_confidences_stay_what_they_were() -> None:
    found = fit_confidence(Combination((1.0,)), np.zeros(0, np.float32), np.zeros(0, bool))
    assert (found.slope, found.offset) == (1.0, 0.0)
    assert found.confidence(np.asarray([0.3], np.float32)) == pytest.approx([0.3])


@settings(max_examples=examples(15), deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 4), min_size=8, max_size=30))
def test_what_counts_several_times_is_as_if_it_were_there_several_times(seed: int, times: list[int]) -> None:
    """In the weights, the scores, the threshold and the confidences. Only sentences without entities do so."""
    truth = truths(len(times), seed)
    counts = np.where(truth == NONE, times, 1)
    evidence = together(judge(truth, 1.0, seed), judge(truth, 2.0, seed + 1))
    rows = np.repeat(np.arange(len(times)), counts)
    weighted = Sample(sample(truth).places, truth, sample(truth).gold, counts.astype(np.float64))
    repeated, expected = fit(evidence[rows], truth[rows]), fit(evidence, truth, weighted.weights)
    assert expected.weights == pytest.approx(repeated.weights, abs=2e-3)
    assert expected.none_bias == pytest.approx(repeated.none_bias, abs=2e-3)
    found, figures = with_threshold(repeated, evidence, weighted)
    again, by_copies = with_threshold(repeated, evidence[rows], sample(truth[rows]))
    assert figures == by_copies
    assert found.threshold == again.threshold
    assert (found.slope, found.offset) == pytest.approx((again.slope, again.offset), abs=2e-3)


def test_scores_by_hand() -> None:
    """Of two spans that overlap the likelier is reported; an entity that nobody proposed is missed."""
    places = [(0, 0, 3), (0, 0, 9), (0, 10, 14), (1, 0, 5), (1, 3, 8), (2, 0, 2)]
    labels = np.asarray([0, NONE, 1, 0, NONE, NONE])
    chosen = np.asarray([0, 0, 0, 0, 1, 1])
    confidence = np.asarray([0.9, 0.6, 0.8, 0.5, 0.7, 0.4])
    decisions = Decisions(chosen, confidence, confidence)
    asked = Sample(places, labels, gold=5, weights=np.ones(len(labels)))
    # Reported: (0, 0–3) right; (0, 10–14) of the wrong type; (1, 3–8) wrong, in front of the right one; (2, 0–2) wrong.
    assert sorted(asked.entities(decisions, NONE)) == [0, 2, 4, 5]
    assert asked.figures(decisions, NONE) == Figures(precision=1 / 4, recall=1 / 5, f1=2 / 9)


def test_scores_where_there_is_nothing() -> None:
    nothing = Decisions(np.asarray([NONE]), np.asarray([1.0]), np.asarray([1.0]))
    assert sample(np.asarray([NONE])).figures(nothing, NONE) == Figures(0.0, 0.0, 0.0)
    assert sample(np.asarray([0])).figures(nothing, NONE) == Figures(0.0, 0.0, 0.0)


def test_the_threshold_is_the_one_with_the_best_f1() -> None:
    truth = np.asarray([NONE, NONE, NONE, 0] * 50)
    evidence = together(judge(truth, 1.0, 1))
    asked = sample(truth)
    plain = fit(evidence, truth)
    found, figures = with_threshold(plain, evidence, asked)
    assert figures == asked.figures(found.decide(evidence), NONE)
    assert figures.f1 > asked.figures(plain.decide(evidence), NONE).f1
    assert found.threshold < 0, "where entities are rare it pays to report more"


def test_of_thresholds_that_are_as_good_the_one_nearest_to_nothing_is_taken() -> None:
    truth = np.asarray([NONE, 0, 1] * 20)
    evidence = together(judge(truth, 60.0, 1))
    found, figures = with_threshold(Combination((1.0,)), evidence, sample(truth))
    assert found.threshold == 0
    assert figures.f1 == 1
