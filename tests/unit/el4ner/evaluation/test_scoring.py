"""Strict scores, by hand and against another implementation."""

from hypothesis import given
from hypothesis import strategies as st
from nervaluate.entities import Entity
from nervaluate.strategies import StrictEvaluation

from el4ner.evaluation.scoring import score, tally
from el4ner.evaluation.sentence_records import SentenceRecord
from tests.support.evaluation_samples import records


def test_precision_recall_and_f1_by_hand() -> None:
    gold = [[(0, 3, "person"), (5, 9, "place")], [(0, 4, "place")], []]
    said = [[(0, 3, "person"), (5, 9, "person")], [], [(1, 2, "place")]]
    scores = score(gold, said, ["person", "place"])
    # One of three reported is right, one of three gold entities is found; by boundaries two are.
    assert (scores.strict.precision, scores.strict.recall, scores.strict.f1) == (1 / 3, 1 / 3, 1 / 3)
    assert (scores.spans.precision, scores.spans.recall, scores.spans.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert scores.per_type["person"].precision == 0.5
    assert scores.per_type["person"].recall == 1.0
    assert scores.per_type["person"].f1 == 2 / 3
    assert (scores.per_type["place"].f1, scores.per_type["place"].support) == (0.0, 2)


def test_nothing_to_find_and_nothing_found() -> None:
    scores = score([[]], [[]], ["person"])
    assert (scores.strict.precision, scores.strict.recall, scores.strict.f1, scores.strict.support) == (0, 0, 0, 0)
    assert score([], [], []).strict.f1 == 0


def test_a_wrong_prediction_that_touches_an_entity_does_not_take_it_from_the_right_one() -> None:
    assert tally([(5, 8, "host")], [(0, 5, "host"), (5, 8, "host")]) == (1, 2, 1)


def test_an_entity_that_is_reported_twice_is_right_once() -> None:
    assert tally([(0, 3, "person")], [(0, 3, "person")] * 2) == (1, 2, 1)


def test_a_label_that_only_the_gold_standard_has_is_listed() -> None:
    assert score([[(0, 3, "animal")]], [[]], ["person"]).per_type["animal"].support == 1


@given(st.lists(records(), max_size=5))
def test_nervaluate_counts_the_same_where_it_is_told_of_exact_matches_first(found: list[SentenceRecord]) -> None:
    for each in found:
        said = sorted(each.predicted, key=lambda entity: entity not in each.gold)
        theirs, _ = StrictEvaluation().evaluate(
            [Entity(label, start, end) for start, end, label in each.gold],
            [Entity(label, start, end) for start, end, label in said],
            [],
        )
        assert tally(each.gold, each.predicted).correct == theirs.correct
