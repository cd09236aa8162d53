"""How well a combination does on the pool itself, each sentence judged without its own labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from el4ner.evidence.combination import Combination, Decisions, decide, fit_confidence
from el4ner.evidence.judges import Doubles, Floats, Ints
from el4ner.text.overlaps import resolve_overlaps
from el4ner.types import Entity

__all__ = ["Figures", "Sample", "with_threshold"]

THRESHOLDS: Final = tuple(float(t) for t in np.arange(-3.0, 1.01, 0.25))


@dataclass(frozen=True, eq=False)
class Sample:
    """Spans that were proposed in some pool sentences, and what they are.

    Args:
        places: (sentence, start, end) of each span.
        labels: of each; the last type's index + 1 is none.
        gold: labelled entities in those sentences, those that nobody proposed too.
        weights: how often each span counts. Those of a sentence with entities do count once.
    """

    places: Sequence[tuple[int, int, int]]
    labels: Ints
    gold: int
    weights: Doubles

    def entities(self, decisions: Decisions, none: int) -> list[int]:
        """Rows of the entities that are reported, once overlaps are resolved as in a document."""
        by_sentence: dict[int, list[int]] = {}
        for row in np.flatnonzero(decisions.chosen != none).tolist():
            by_sentence.setdefault(self.places[row][0], []).append(row)
        kept: list[int] = []
        for rows in by_sentence.values():
            spans = {(self.places[row][1], self.places[row][2]): row for row in rows}
            candidates = [
                Entity(start, end, "", str(decisions.chosen[row]), float(decisions.confidence[row]))
                for (start, end), row in spans.items()
            ]
            kept += [spans[entity.start, entity.end] for entity in resolve_overlaps(candidates)]
        return kept

    def figures(self, decisions: Decisions, none: int) -> Figures:
        """Strict micro scores."""
        kept = self.entities(decisions, none)
        right = sum(int(decisions.chosen[row] == self.labels[row]) for row in kept)
        reported = float(self.weights[kept].sum())
        return Figures(
            precision=right / reported if kept else 0.0,
            recall=right / self.gold if self.gold else 0.0,
            f1=2 * right / (reported + self.gold) if reported + self.gold else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """Strict, micro, of a pool's own sentences."""

    precision: float
    recall: float
    f1: float


def with_threshold(combination: Combination, evidence: Floats, sample: Sample) -> tuple[Combination, Figures]:
    """With the threshold that gives the best F1 (of equals the one nearest to 0), confidences to it, and that F1."""
    likely = combination.log_probabilities(evidence)
    none = likely.shape[1] - 1
    tried = [(sample.figures(decide(likely, threshold), none), threshold) for threshold in THRESHOLDS]
    figures, threshold = max(tried, key=lambda trial: (trial[0].f1, -abs(trial[1])))
    decisions = decide(likely, threshold)
    reported = sample.entities(decisions, none)
    right = decisions.chosen[reported] == sample.labels[reported]
    chosen = replace(combination, threshold=threshold)
    return fit_confidence(chosen, decisions.confidence[reported], right, sample.weights[reported]), figures
