"""The expected calibration error, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.evaluation.reliability import calibration, judged
from tests.support.evaluation_samples import considered, record


def test_by_hand() -> None:
    # (0.8, 0.9]: mean confidence 0.85, half right, two of four; (0.2, 0.3]: 0.25, none right, one; 1.0: right, one.
    found = calibration([(0.81, True), (0.89, False), (0.25, False), (1.0, True)])
    assert found.ece == pytest.approx(2 / 4 * 0.35 + 1 / 4 * 0.25 + 0)
    assert [each.count for each in found.bins] == [0, 0, 1, 0, 0, 0, 0, 0, 2, 1]
    assert found.bins[8].accuracy == 0.5
    assert (found.sure.entities, found.sure.right) == (3, 2 / 3)
    assert found.sure.mean_confidence == pytest.approx(0.9)


def test_no_entity_has_no_error() -> None:
    found = calibration([])
    assert (found.ece, found.sure.entities, found.sure.right, found.sure.mean_confidence) == (None, 0, None, None)


def test_a_confidence_on_an_edge_is_in_one_bin() -> None:
    for edge in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0):
        assert sum(each.count for each in calibration([(edge, True)]).bins) == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans())))
def test_every_entity_is_in_a_bin_and_the_error_is_a_share(reported: list[tuple[float, bool]]) -> None:
    found = calibration(reported)
    assert sum(each.count for each in found.bins) == len(reported)
    assert (found.ece is None) == (not reported)
    assert found.ece is None or 0 <= found.ece <= 1


def test_what_is_right_has_its_boundaries_and_its_type() -> None:
    one = record(
        [(0, 3, "person"), (5, 9, "place")],
        [
            considered((0, 3), "person", confidence=0.9),
            considered((5, 9), "person", confidence=0.8),
            considered((10, 12), "place", confidence=0.7),
            considered((20, 22), "place", "overlapped"),
        ],
    )
    assert judged([one]) == [(0.9, True), (0.8, False), (0.7, False)]
