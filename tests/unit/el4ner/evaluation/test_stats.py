"""Intervals and the paired test: what they promise, and what they say where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.evaluation.pairing import paired
from el4ner.evaluation.scoring import Tally, f1_of
from el4ner.evaluation.sentence_records import EvaluationError
from el4ner.evaluation.stats import CELLS, compare, intervals
from tests.support.evaluation_samples import considered, record
from tests.support.examples import examples


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    predicted, gold = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    return Tally(draw(st.integers(0, min(predicted, gold))), predicted, gold)


@st.composite
def two_runs(draw: st.DrawFn) -> list[tuple[Tally, Tally]]:
    gold = draw(st.lists(st.integers(0, 4), min_size=1, max_size=12))
    return [tuple(Tally(draw(st.integers(0, g)), draw(st.integers(g, 6)), g) for _ in range(2)) for g in gold]  # type: ignore[misc]


@settings(max_examples=examples(50))
@given(st.lists(tallies(), max_size=12))
def test_an_interval_holds_the_figure_and_stays_in_0_to_1(own: list[Tally]) -> None:
    found = intervals(own, resamples=200)
    right, predicted, gold = (sum(each[i] for each in own) for i in range(3))
    figures = (
        (found.precision, right / predicted if predicted else 0.0),
        (found.recall, right / gold if gold else 0.0),
        (found.f1, f1_of(right, predicted, gold)),
    )
    for (low, high), figure in figures:
        assert 0 <= low <= figure + 1e-12
        assert figure - 1e-12 <= high <= 1


def test_equal_sentences_leave_nothing_to_chance() -> None:
    assert intervals([Tally(1, 2, 2)] * 30).f1 == (0.5, 0.5)


def test_more_sentences_make_the_interval_narrower() -> None:
    few, many = (intervals([Tally(1, 1, 1), Tally(0, 1, 1)] * n).f1 for n in (10, 1000))
    assert many[1] - many[0] < (few[1] - few[0]) / 5


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Recall over n sentences with one entity each is a binomial share: ± 1.96 sqrt(p (1 - p) / n)."""
    low, high = intervals([Tally(1, 1, 1)] * 200 + [Tally(0, 0, 1)] * 200).recall
    half = 1.96 * np.sqrt(0.25 / 400)
    assert low == pytest.approx(0.5 - half, abs=0.008)
    assert high == pytest.approx(0.5 + half, abs=0.008)


def test_the_seed_decides_and_portions_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [Tally(1, 2, 2), Tally(0, 1, 1), Tally(2, 2, 3)] * 5
    whole = intervals(own, seed=1)
    assert whole == intervals(own, seed=1)
    assert 2_000 * len(own) < CELLS
    monkeypatch.setattr("el4ner.evaluation.stats.CELLS", 1_000)
    assert whole == intervals(own, seed=1)


@settings(max_examples=examples(50))
@given(two_runs())
def test_a_p_value_is_never_0_and_the_comparison_is_symmetric(runs: list[tuple[Tally, Tally]]) -> None:
    ours, theirs = [a for a, _ in runs], [b for _, b in runs]
    found = compare(ours, theirs, resamples=100, rounds=200)
    turned = compare(theirs, ours, resamples=100, rounds=200)
    assert 0 < found.p_value <= 1
    assert found.p_value == turned.p_value
    assert found.difference == -turned.difference
    low, high = found.difference_ci
    assert low <= found.difference <= high


def test_a_run_against_itself_is_no_difference() -> None:
    own = [Tally(1, 2, 2), Tally(0, 1, 1)] * 20
    found = compare(own, own)
    assert (found.difference, found.difference_ci, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_a_clear_difference_is_clear() -> None:
    found = compare([Tally(1, 1, 1)] * 50, [Tally(0, 1, 1)] * 50)
    assert (found.f1, found.other_f1, found.difference) == (1.0, 0.0, 1.0)
    assert found.p_value == 1 / 10_001


def test_the_p_value_is_near_the_exact_one() -> None:
    """Five sentences, each for this run: of the 2**5 swaps two give a difference as large."""
    found = compare([Tally(1, 1, 1)] * 5, [Tally(0, 1, 1)] * 5)
    assert found.p_value == pytest.approx(2 / 32, abs=0.01)


def test_runs_over_different_sentences_or_gold_are_refused() -> None:
    one = record([(0, 3, "person")], text="Ada slept in Rome")
    with pytest.raises(EvaluationError, match=r"1 here, 1 there, 0 in both.*--limit and --seed"):
        paired([one], [record(text="Something else")])
    with pytest.raises(EvaluationError, match="2 here, 1 there, 1 in both"):
        paired([one, one], [one])
    with pytest.raises(EvaluationError, match="gold standards differ, for one at 'Ada slept in Rome'"):
        paired([one], [record([(0, 3, "place")], text="Ada slept in Rome")])
    with pytest.raises(EvaluationError, match="different sentences"):
        compare([Tally(0, 0, 1)], [Tally(0, 0, 2)])


def test_the_order_of_a_file_does_not_matter() -> None:
    one, two = record(text="one"), record(text="two")
    other = record(text="two", candidates=[considered((0, 3), "person")])
    ours, theirs = paired([one, two], [other, one])
    assert [each.text for each in ours] == [each.text for each in theirs]
