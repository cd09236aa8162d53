"""Whether a confidence of 0.8 means that 80 % are right: reliability bins and the expected calibration error.

Source: Guo, Pleiss, Sun and Weinberger (2017), On Calibration of Modern Neural Networks, sections 2 and 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from el4ner.evaluation.sentence_records import SentenceRecord

__all__ = ["BINS", "SURE", "Bin", "Reliability", "Sure", "calibration", "judged"]

BINS: Final = 10
SURE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Bin:
    """Reported entities with a confidence in (``low``, ``high``], the first bin with 0 too.

    ``confidence`` and ``accuracy`` are means, 0 where ``count`` is.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class Sure:
    """Entities reported with a confidence of :data:`SURE` or more; None where there are none."""

    entities: int
    right: float | None
    mean_confidence: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """``ece`` is 0 where confidence is accuracy; None where no entity was reported."""

    ece: float | None
    bins: tuple[Bin, ...]
    sure: Sure


def judged(records: Iterable[SentenceRecord]) -> list[tuple[float, bool]]:
    """Every reported entity's confidence, and whether it is strictly right."""
    return [
        (entity.confidence, (entity.start, entity.end, entity.type) in gold)
        for record in records
        for gold in (set(record.gold),)
        for entity in record.entities
    ]


def calibration(reported: Sequence[tuple[float, bool]], *, bins: int = BINS) -> Reliability:
    """Expected calibration error over equal-width bins (Guo et al., 2017, equation 3).

    ECE = Σ over bins of (share of the entities) × |accuracy − mean confidence|. It speaks of the entities that were
    reported only: a missed one has no confidence.

    Args:
        reported: confidence in [0, 1] and whether it was right, as :func:`judged` gives them.
        bins: how many.
    """
    edges = [index / bins for index in range(bins + 1)]
    filled = []
    for low, high in pairwise(edges):
        inside = [each for each in reported if low < each[0] <= high or (low == each[0] == 0)]
        filled.append(Bin(low, high, *_means(inside), len(inside)))
    ece = (
        sum(each.count * abs(each.accuracy - each.confidence) for each in filled) / len(reported) if reported else None
    )
    sure = [each for each in reported if each[0] >= SURE]
    confidence, right = _means(sure)
    return Reliability(
        ece=ece,
        bins=tuple(filled),
        sure=Sure(len(sure), right if sure else None, confidence if sure else None),
    )


def _means(reported: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    count = max(1, len(reported))
    return sum(confidence for confidence, _ in reported) / count, sum(right for _, right in reported) / count
