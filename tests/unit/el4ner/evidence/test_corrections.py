"""What was taught counts where it is used alike, as far as the pool had it wrong, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from el4ner.evidence.calibration import NEVER, Calibration, Step
from el4ner.evidence.combination import Combination
from el4ner.evidence.corrections import AHEAD, ALIKE, APART, MOST, CorrectionSource, shortfalls, with_corrections
from el4ner.evidence.judges import Floats
from el4ner.evidence.sources import TAUGHT, BoundarySource, SentenceQuestion
from el4ner.types import Span, Usage

KINDS = 3
QUESTION = SentenceQuestion("a", (Span(0, 1, "a"),))


class Comparing:
    """Has the vectors of one span, of one layer."""

    name = "member"

    def __init__(self, *numbers: float) -> None:
        self._vector = np.array([[numbers]], dtype=np.float32)

    def vectors(self, questions: Sequence[SentenceQuestion]) -> tuple[Floats, Usage]:
        return self._vector, Usage(1, 0, 0)


def at_cosine(cosine: float) -> tuple[float, float]:
    return cosine, float(np.sqrt(1 - cosine**2))


def corrected(
    cosine: float, *corrections: Sequence[float], keys: Sequence[tuple[float, float]] = ((1.0, 0.0),)
) -> list[float]:
    source = CorrectionSource(
        [Comparing(*at_cosine(cosine))],  # type: ignore[list-item]
        {"member": np.array([keys], dtype=np.float32)},
        np.array(corrections, dtype=np.float32),
        "f",
    )
    (answer,), _ = source.answer([QUESTION])
    found: list[float] = answer[0, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("cosine", "share"), [(1, 1), (ALIKE, 1), ((ALIKE + APART) / 2, 0.5), (APART, 0), (0, 0), (-1, 0)]
)
def test_a_correction_counts_as_far_as_the_span_is_used_alike(cosine: float, share: float) -> None:
    assert corrected(cosine, [0, 4, 0]) == pytest.approx([0, 4 * share, 0], abs=1e-4)


def test_of_two_that_are_alike_the_nearer_counts_more_and_equals_are_shared() -> None:
    near = corrected(1, [0, 4, 0], [2, 0, 0], keys=[(1.0, 0.0), at_cosine(0.8)])
    assert near[1] > 3.9
    assert near[0] < 0.1
    assert corrected(1, [0, 4, 0], [0, 0, 0], keys=[(1.0, 0.0)] * 2) == pytest.approx([0, 2, 0])


def test_what_the_pool_had_right_needs_no_correction_and_what_it_had_wrong_as_much_as_it_was() -> None:
    source = BoundarySource("f", np.zeros(0), KINDS)
    combination = Combination((1.0,), threshold=-1.0)
    likely = np.array([0.99, 0.01, 0.5])
    labels = np.array([0, 0, 2])
    missing = shortfalls([source], combination, {}, likely, labels, KINDS)
    said = combination.log_probabilities(source.said(likely)) + np.array([0, 0, -1.0])
    after = said + missing
    for row, label in enumerate(labels):
        others = np.delete(after[row], label)
        assert after[row, label] - others.max() >= AHEAD - 1e-4
    assert (missing[[0, 1, 2], labels] >= 0).all()
    assert missing.sum() == pytest.approx(missing[[0, 1, 2], labels].sum())


def test_a_type_that_the_files_do_not_have_is_corrected_from_the_least_that_they_say() -> None:
    source = BoundarySource("f", np.zeros(0), KINDS)
    missing = shortfalls([source], Combination((1.0,)), {}, np.array([0.001]), np.array([2]), KINDS + 1)
    assert missing.shape == (1, KINDS + 1)
    assert 0 < missing[0, 2] <= MOST


def test_every_span_is_asked_about_and_what_was_taught_is_added_last() -> None:
    step = Step("member", Combination((0.5, 0.5), none_bias=0.1, threshold=-1), 0.7, None)
    made = with_corrections(Calibration("k", (step,), None, 1, 1))
    assert [each.margin for each in made.steps] == [NEVER, None]
    assert (made.steps[-1].source, made.steps[-1].combination.weights) == (TAUGHT, (0.5, 0.5, 1.0))
    assert made.steps[-1].combination.threshold == -1
