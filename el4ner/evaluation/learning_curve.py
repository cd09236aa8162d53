"""How good the tags are by the number of labelled sentences: one evaluation for each subset of the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from el4ner.evaluation.dataset import Dataset
from el4ner.evaluation.pool_subsets import PoolSubset
from el4ner.evaluation.scoring import TypeScores
from el4ner.evaluation.stats import Interval, mean_f1, tallies_of
from el4ner.evaluation.summary import EvaluationResult

__all__ = ["CurvePoint", "LearningCurve", "SubsetRun", "learning_curve"]


@dataclass(frozen=True)
class SubsetRun:
    """One evaluation with a part of the pool."""

    subset: PoolSubset
    result: EvaluationResult

    def as_json(self) -> dict[str, Any]:
        """Its figures."""
        strict = self.result.scores.strict
        return {
            "seed": self.subset.seed,
            "f1": strict.f1,
            "precision": strict.precision,
            "recall": strict.recall,
            "span_f1": self.result.scores.spans.f1,
            "candidate_recall": self.result.candidate_recall,
            "labelled_spans": self.subset.labelled,
            "missing_types": self.subset.missing,
            "cached_sentences": self.result.cached_sentences,
        }


@dataclass(frozen=True)
class CurvePoint:
    """Pools of one size. Figures without an own word are means over the seeds."""

    size: int
    runs: tuple[SubsetRun, ...]

    @cached_property
    def f1(self) -> tuple[float, Interval]:
        """The mean micro F1 and its 95 % interval over sentences and seeds."""
        return mean_f1([tallies_of(run.result.records) for run in self.runs])

    @property
    def seeds_f1(self) -> tuple[float, float]:
        """The worst and the best seed's."""
        each = [run.result.scores.strict.f1 for run in self.runs]
        return min(each), max(each)

    @property
    def span_f1(self) -> float:
        """Of the boundaries alone."""
        return fmean(run.result.scores.spans.f1 for run in self.runs)

    @property
    def labelled(self) -> float:
        """Labelled spans of the pools."""
        return fmean(run.subset.labelled for run in self.runs)

    @property
    def missing(self) -> float:
        """Types without any labelled span."""
        return fmean(len(run.subset.missing) for run in self.runs)

    def as_json(self, pool_sentences: int) -> dict[str, Any]:
        """``pool_sentences``: of the whole pool."""
        mean, ends = self.f1

        def strict(figure: Callable[[TypeScores], float]) -> float:
            return fmean(figure(run.result.scores.strict) for run in self.runs)

        return {
            "size": self.size,
            "whole_pool": self.size == pool_sentences,
            "f1": mean,
            "f1_ci": ends,
            "precision": strict(lambda scores: scores.precision),
            "recall": strict(lambda scores: scores.recall),
            "span_f1": self.span_f1,
            "labelled_spans": self.labelled,
            "missing_types": self.missing,
            "seeds": [run.as_json() for run in self.runs],
        }


@dataclass(frozen=True)
class LearningCurve:
    """Points by ascending size, all over the sentences of ``dataset``."""

    dataset: Dataset
    points: tuple[CurvePoint, ...]

    @property
    def pool_sentences(self) -> int:
        """Of the whole pool."""
        return len(self.dataset.pool.sentences)

    def as_json(self) -> dict[str, Any]:
        """For ``el4ner eval --pool-sizes … --json``: the keys are a promise to scripts."""
        first = self.points[0].runs[0].result
        return {
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "sentences": len(self.dataset.sentences),
            "entities": first.scores.strict.support,
            "pool_sentences": self.pool_sentences,
            "pool_types": list(self.dataset.pool.types),
            "points": [point.as_json(self.pool_sentences) for point in self.points],
            "settings": first.settings,
        }


def learning_curve(
    dataset: Dataset, subsets: Iterable[PoolSubset], run: Callable[[Dataset], EvaluationResult]
) -> LearningCurve:
    """One call of ``run`` for each subset, with the data set's sentences and the subset as its pool.

    F1 is over all gold entities, also over those of types that a subset lacks. The largest pool comes first: where
    ``run`` remembers what it has read, that is most of what the smaller ones need.

    Args:
        dataset: the sentences and the whole pool.
        subsets: of that pool; at least one.
        run: measures; must not depend on the order.
    """
    by_size: dict[int, list[SubsetRun]] = {}
    for subset in sorted(subsets, key=lambda each: (-each.size, each.seed)):
        result = run(replace(dataset, pool=subset.pool))
        by_size.setdefault(subset.size, []).append(SubsetRun(subset, result))
    return LearningCurve(dataset, tuple(CurvePoint(size, tuple(by_size[size])) for size in sorted(by_size)))
