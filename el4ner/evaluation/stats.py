"""How far chance reaches: bootstrap intervals, and a paired test of two runs over the same sentences.

The sentence is the unit of chance, since the entities of one sentence are right or wrong together. Sources: percentile
bootstrap, Efron and Tibshirani (1993), chapter 13; approximate randomisation for F1, Yeh (2000), with the counting of
Noreen (1989), which never gives p = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from el4ner.evaluation.scoring import Tally, f1_of, strict_tallies
from el4ner.evaluation.sentence_records import EvaluationError, SentenceRecord

__all__ = [
    "RESAMPLES",
    "ROUNDS",
    "Comparison",
    "Interval",
    "Intervals",
    "compare",
    "intervals",
    "mean_f1",
    "tallies_of",
]

RESAMPLES: Final = 2_000
ROUNDS: Final = 10_000
LEVEL: Final = 0.95
CELLS: Final = 4_000_000
"""The most numbers that are drawn at a time: memory stays bounded for a data set of any size."""

Interval = tuple[float, float]
"""Low and high end, both included."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % intervals of the micro averages."""

    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """This run against another one on the same sentences. ``difference`` is this F1 less the other one's.

    ``p_value`` is two-sided: how often swapping the two runs' answers at random, sentence by sentence, gives at least
    this difference.
    """

    sentences: int
    f1: float
    other_f1: float
    difference: float
    difference_ci: Interval
    p_value: float
    other: str = ""
    """What the other run is called, for people."""


def intervals(tallies: Sequence[Tally], *, seed: int = 0, resamples: int = RESAMPLES) -> Intervals:
    """Percentile intervals over ``resamples`` draws of the sentences with replacement.

    Args:
        tallies: one a sentence.
        seed: the same one gives the same intervals.
        resamples: how many draws.
    """
    counts = _columns(tallies)
    drawn = np.concatenate([weights @ counts for weights in _resampled(len(counts), resamples, seed)])
    point = counts.sum(axis=0, keepdims=True)
    precision, recall, f1 = (
        _interval(figures[:-1], float(figures[-1])) for figures in _figures(np.concatenate([drawn, point]))
    )
    return Intervals(precision, recall, f1)


def mean_f1(runs: Sequence[Sequence[Tally]], *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, Interval]:
    """The mean of the runs' micro F1, and its percentile interval: each draw takes sentences with replacement (the same
    ones for all runs), and runs with replacement. Of one run that is the interval over sentences.

    Few runs understate how far others would be: a bootstrap of n sees (n - 1) / n of the variance between them.

    Args:
        runs: at least one; ``runs[i][j]`` is sentence j in run i.
        seed: the same one gives the same interval.
        resamples: how many draws.
    """
    counts = [_columns(run) for run in runs]
    random = np.random.default_rng((seed, len(runs)))
    drawn = []
    for weights in _resampled(len(counts[0]), resamples, seed):
        f1 = np.stack([_figures(weights @ each)[2] for each in counts], axis=1)
        shares = random.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=len(f1)) / len(runs)
        drawn.append((f1 * shares).sum(axis=1))
    point = float(np.mean([f1_of(*(float(total) for total in each.sum(axis=0))) for each in counts]))
    return point, _interval(np.concatenate(drawn), point)


def compare(
    this: Sequence[Tally],
    other: Sequence[Tally],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    rounds: int = ROUNDS,
) -> Comparison:
    """Paired comparison of micro F1; ``this[i]`` and ``other[i]`` are of the same sentence.

    Raises:
        EvaluationError: there are not as many sentences, or the gold standards differ in size.
    """
    if [each.gold for each in this] != [each.gold for each in other]:
        raise EvaluationError("the runs are over different sentences: compare runs of one data set, split and sample")
    a, b = _columns(this), _columns(other)
    f1, other_f1 = (f1_of(*(float(total) for total in counts.sum(axis=0))) for counts in (a, b))
    resampled = [_figures(weights @ a)[2] - _figures(weights @ b)[2] for weights in _resampled(len(a), resamples, seed)]
    observed = abs(f1 - other_f1)
    extreme = 0
    for swapped in _coins(len(a), rounds, seed):
        moved = swapped @ (b - a)
        differences = _figures(a.sum(axis=0) + moved)[2] - _figures(b.sum(axis=0) - moved)[2]
        # A hair's breadth less: the same difference, added up in another order, is not to be missed.
        extreme += int(np.count_nonzero(np.abs(differences) >= observed - 1e-12))
    return Comparison(
        sentences=len(a),
        f1=f1,
        other_f1=other_f1,
        difference=f1 - other_f1,
        difference_ci=_interval(np.concatenate(resampled), f1 - other_f1),
        p_value=(extreme + 1) / (rounds + 1),
    )


def tallies_of(records: Sequence[SentenceRecord]) -> list[Tally]:
    """Strict tallies, one a record."""
    return strict_tallies([record.gold for record in records], [record.predicted for record in records])


def _columns(tallies: Sequence[Tally]) -> Floats:
    """Shape (sentences, 3): right, predicted, gold."""
    return np.array(tallies, dtype=np.float64).reshape(-1, 3)


def _figures(totals: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of each row (right, predicted, gold); 0 where there is nothing to divide by."""
    right, predicted, gold = totals[:, 0], totals[:, 1], totals[:, 2]

    def ratio(part: Floats, whole: Floats) -> Floats:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    return ratio(right, predicted), ratio(right, gold), ratio(2 * right, predicted + gold)


def _interval(figures: Floats, point: float) -> Interval:
    """The middle 95 %; it always holds the point estimate, also where rounding or few sentences would leave it out."""
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(float(low), point), max(float(high), point)


def _resampled(sentences: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each sentence is drawn: shape (some, sentences), ``resamples`` rows in all."""
    random = np.random.default_rng(seed)
    for rows in _portions(resamples, sentences):
        if sentences:
            yield random.multinomial(sentences, np.full(sentences, 1 / sentences), size=rows).astype(np.float64)
        else:
            yield np.zeros((rows, 0))


def _coins(sentences: int, rounds: int, seed: int) -> Iterator[Floats]:
    """1 where a sentence's answers are swapped: shape (some, sentences), ``rounds`` rows in all."""
    random = np.random.default_rng(seed)
    for rows in _portions(rounds, sentences):
        yield random.integers(0, 2, size=(rows, sentences)).astype(np.float64)


def _portions(rows: int, columns: int) -> Iterator[int]:
    most = max(1, CELLS // max(1, columns))
    for done in range(0, rows, most):
        yield min(most, rows - done)
