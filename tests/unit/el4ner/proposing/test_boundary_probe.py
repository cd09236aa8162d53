"""The probe: a ridge regression, and what it would say of a sentence that it never saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from el4ner.evidence.judges import Floats
from el4ner.proposing.boundary_probe import BEGIN, END, INSIDE, RIDGE, BoundaryProbe, in_context, questions_of
from tests.support.examples import examples

WORDS = [(0, 3), (4, 5), (6, 10), (10, 11), (11, 14)]
"""Of ``The A Team-mix``."""


def made_up(lengths: Sequence[int], seed: int, *, dimensions: int = 4, told: float = 2.0) -> tuple[list, list]:
    """States by chance in which the first dimension tells where entities are, and the right answers."""
    rng = np.random.default_rng(seed)
    states, answers = [], []
    for length in lengths:
        of_words = rng.standard_normal((length, dimensions)).astype(np.float32)
        words = [(2 * place, 2 * place + 1) for place in range(length)]
        start = int(rng.integers(length))
        end = int(rng.integers(start, length))
        answers.append(questions_of(words, [(words[start][0], words[end][1])] if rng.random() < 0.8 else []))
        of_words[:, 0] += told * answers[-1][:, INSIDE]
        states.append(of_words)
    return states, answers


def test_an_entity_begins_and_ends_with_words_and_the_others_go_on_in_it() -> None:
    answers = questions_of(WORDS, [(4, 10), (11, 14)])
    assert answers[:, BEGIN].tolist() == [0, 1, 0, 0, 1]
    assert answers[:, END].tolist() == [0, 0, 1, 0, 1]
    assert answers[:, INSIDE].tolist() == [0, 1, 1, 0, 1]


def test_a_word_that_is_only_partly_in_an_entity_is_none_of_it() -> None:
    assert questions_of(WORDS, [(1, 10)])[:, BEGIN].tolist() == [0, 1, 0, 0, 0]
    assert not questions_of(WORDS, [(7, 9)]).any(), "nothing but a part of a word"
    assert not questions_of(WORDS, []).any()
    assert questions_of([], [(0, 3)]).shape == (0, 3)


def test_a_word_is_seen_between_its_neighbours() -> None:
    states = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    assert in_context(states).tolist() == [[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 0, 0]]
    assert in_context(states[:1]).tolist() == [[0, 0, 1, 2, 0, 0]]
    assert in_context(states[:0]).shape == (0, 6)


def ridge(features: Sequence[Floats], answers: Sequence[Floats], mean: Floats) -> Floats:
    """The textbook's way, in double precision."""
    x, y = np.concatenate(features).astype(np.float64), np.concatenate(answers).astype(np.float64) - mean
    return np.linalg.solve(x.T @ x + RIDGE * x.shape[1] * np.eye(x.shape[1]), x.T @ y)  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=examples(20))
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_what_it_says_of_a_sentence_is_what_a_probe_without_that_sentence_says(lengths: list[int], seed: int) -> None:
    states, answers = made_up(lengths, seed)
    probe, left_out = BoundaryProbe.of(states, answers)
    known = [(in_context(of_sentence) - probe.centre) / probe.scale for of_sentence in states]
    mean = np.concatenate(answers).astype(np.float64).mean(axis=0)
    with_all = ridge(known, answers, mean)
    # The map to log-odds is one for all: it is read off what the probe says of the sentences that it knows.
    slopes = [
        float(np.median(probe.weights[:, one] / with_all[:, one])) if with_all[:, one].any() else 0 for one in range(3)
    ]
    for number in range(len(states)):
        others = ridge(known[:number] + known[number + 1 :], answers[:number] + answers[number + 1 :], mean)
        assert left_out[number] == pytest.approx(known[number] @ others * slopes + probe.offsets, rel=2e-2, abs=2e-2)


def test_of_a_large_pool_too_which_is_read_in_parts() -> None:
    states, answers = made_up([7] * 700, 1)
    probe, left_out = BoundaryProbe.of(states, answers)
    assert sum(map(len, left_out)) == 4_900
    known = [(in_context(of_sentence) - probe.centre) / probe.scale for of_sentence in states]
    mean = np.concatenate(answers).astype(np.float64).mean(axis=0)
    slopes = probe.weights[0] / ridge(known, answers, mean)[0]
    for number in (0, 284, 285, 286, 699):
        others = ridge(known[:number] + known[number + 1 :], answers[:number] + answers[number + 1 :], mean)
        assert left_out[number] == pytest.approx(known[number] @ others * slopes + probe.offsets, abs=1e-3)


def test_what_states_tell_is_found_and_what_they_do_not_tell_is_not() -> None:
    """Asked about sentences that it knows, a probe of many dimensions looks well whatever the states are."""
    for told, least, most in ((4.0, 0.9, 1.0), (0.0, 0.4, 0.6)):
        states, answers = made_up([6] * 120, 2, dimensions=64, told=told)
        _, left_out = BoundaryProbe.of(states, answers)
        odds, right = np.concatenate(left_out)[:, INSIDE], np.concatenate(answers)[:, INSIDE] > 0
        assert least <= (odds[right][:, None] > odds[~right][None, :]).mean() <= most


def test_log_odds_are_as_often_right_as_they_say() -> None:
    states, answers = made_up([6] * 300, 3, told=1.5)
    _, left_out = BoundaryProbe.of(states, answers)
    likely = 1 / (1 + np.exp(-np.concatenate(left_out)))
    assert likely.mean(axis=0) == pytest.approx(np.concatenate(answers).mean(axis=0), abs=0.01)


def test_a_new_sentence_is_judged_as_a_left_out_one_is() -> None:
    states, answers = made_up([6] * 200, 4)
    probe, left_out = BoundaryProbe.of(states, answers)
    for number in (0, 57):
        assert probe.log_odds(states[number]) == pytest.approx(left_out[number], abs=0.5), "of 200 one hardly matters"


def test_the_same_states_give_the_same_probe() -> None:
    states, answers = made_up([3, 1, 8, 5], 5)
    one, other = BoundaryProbe.of(states, answers), BoundaryProbe.of(states, answers)
    for name in ("centre", "scale", "weights", "offsets"):
        assert (getattr(one[0], name) == getattr(other[0], name)).all()
    assert all((a == b).all() for a, b in zip(one[1], other[1], strict=True))


def test_a_dimension_that_never_moves_is_no_fault() -> None:
    states, answers = made_up([5] * 20, 6)
    for of_sentence in states:
        of_sentence[:, 1] = 3.0
    probe, left_out = BoundaryProbe.of(states, answers)
    assert np.isfinite(np.concatenate(left_out)).all()
    assert np.isfinite(probe.log_odds(states[0])).all()
    constant = [np.ones((3, 2), np.float32)] * 5
    probe, left_out = BoundaryProbe.of(constant, [questions_of([(0, 1), (2, 3), (4, 5)], [(0, 1)])] * 5)
    assert np.isfinite(np.concatenate(left_out)).all()


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_where_all_answers_are_the_same_it_says_that_one_and_no_infinity(answer: float) -> None:
    states, _ = made_up([4] * 20, 7)
    answers = [np.full((4, 3), answer, dtype=np.float32) for _ in states]
    probe, left_out = BoundaryProbe.of(states, answers)
    for odds in (np.concatenate(left_out), probe.log_odds(states[0])):
        assert np.isfinite(odds).all()
        assert ((odds > 0) == bool(answer)).all()


def test_sentences_of_one_word() -> None:
    states, answers = made_up([1] * 40, 8, told=4.0)
    probe, left_out = BoundaryProbe.of(states, answers)
    assert [odds.shape for odds in left_out] == [(1, 3)] * 40
    right = np.concatenate(answers)[:, BEGIN] > 0
    assert ((np.concatenate(left_out)[:, BEGIN] > 0) == right).mean() > 0.9
    assert probe.log_odds(states[0]).shape == (1, 3)


def test_a_sentence_without_words_has_no_odds() -> None:
    states, answers = made_up([4] * 10, 9)
    probe, _ = BoundaryProbe.of(states, answers)
    assert probe.log_odds(np.zeros((0, 4), np.float32)).shape == (0, 3)
