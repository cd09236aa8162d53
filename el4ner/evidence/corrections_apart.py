"""Corrections where members run in different processes: each mentions what was taught and is near, and who combines
their answers makes the correction of what all of them mention.

A taught span counts as :mod:`el4ner.evidence.corrections` says, by the mean over members. No process can tell that mean
alone, nor what the pool's files say of the span together. So each mentions, for the taught spans that are near, its own
cosines and what it says of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from el4ner.evidence.combination import Combination
from el4ner.evidence.corrections import mean_cosines, shares_of, shortfall
from el4ner.evidence.judges import Floats
from el4ner.evidence.sources import SentenceQuestion, StateSource
from el4ner.types import NearTaught, Usage

__all__ = ["FAR", "MOST_NEAR", "NearSource", "NearSpans", "correction_together"]

FAR: Final = 0.35
"""The cosine from which a process mentions a taught span. Of two processes, the other one would need more than 0.75 for
a span below it to count."""
MOST_NEAR: Final = 64
"""Taught spans that a process mentions of a sentence: the nearest."""
_DECIMALS: Final = 4, 2
"""Of the cosines and of the log-probabilities that are mentioned."""


class NearSource(Protocol):
    """Which taught spans are like a sentence's candidates."""

    def near(self, questions: Sequence[SentenceQuestion]) -> tuple[list[NearTaught], Usage]:
        """For each question."""


class NearSpans:
    """Which taught spans are like others, by the members of one process: the corrections are made of what all processes
    say (:func:`correction_together`).

    Args:
        sources: those that compare states, in the order in which this process speaks.
        keys: for each of them the taught spans' vectors ``[layers, taught, dimensions]``.
        names: of the taught spans.
        labels: of the taught spans.
        said: ``[taught, features, types of the files + none]``: what these sources say of them by the files.
    """

    def __init__(
        self,
        sources: Sequence[StateSource],
        keys: Mapping[str, Floats],
        names: Sequence[str],
        labels: Sequence[str],
        said: Floats,
    ) -> None:
        self._sources, self._keys = sources, keys
        self._names, self._labels = names, labels
        self._said = _rounded(said, _DECIMALS[1])

    def near(self, questions: Sequence[SentenceQuestion]) -> tuple[list[NearTaught], Usage]:
        """As :class:`NearSource` has it. What the sources have read of a question last is not read again."""
        cosines, count, usage = mean_cosines(self._sources, self._keys, questions)
        ends = np.cumsum([len(question.spans) for question in questions])
        return [self._mentioned(of_question, count) for of_question in np.split(cosines, ends)[:-1]], usage

    def _mentioned(self, cosines: Floats, count: int) -> NearTaught:
        nearest = cosines.max(axis=0, initial=-1)
        mentioned = np.flatnonzero(nearest >= FAR)
        if len(mentioned) > MOST_NEAR:
            mentioned = np.sort(mentioned[np.argsort(-nearest[mentioned], kind="stable")[:MOST_NEAR]])
        alike = cosines[:, mentioned]
        return NearTaught(
            tuple(self._names[place] for place in mentioned.tolist()),
            tuple(self._labels[place] for place in mentioned.tolist()),
            _rounded(np.where(alike >= FAR, alike, 0), _DECIMALS[0]),
            count,
            self._said[mentioned],
        )


def _rounded(numbers: Floats, decimals: int) -> Floats:
    """As they are read again when so many decimals were written."""
    return np.round(numbers.astype(np.float64), decimals).astype(np.float32)


def correction_together(
    near: Sequence[NearTaught],
    evidence: Floats,
    columns: Sequence[tuple[int, int] | None],
    combination: Combination,
    labels: Sequence[str],
) -> Floats:
    """What is to be added to what members in different processes say of a sentence's candidates: ``[candidates, types +
    none]``. A taught span counts if each process that compares states finds it near.

    Args:
        near: by process, of one sentence.
        evidence: ``[candidates, features, types + none]``, in the combination's order. What is said of a taught span is
            what the processes mention of it; where nobody compares states it is what is said of the candidate.
        columns: for each feature whose it is: place in ``near`` and in its numbers; None: it is no comparison.
        combination: of all features.
        labels: the pool's types, and none.

    Raises:
        ValueError: a taught span has a type that is none of the pool's.
    """
    none = np.zeros((len(evidence), len(labels)), dtype=np.float32)
    common = [name for name in near[0].spans if all(name in other.spans for other in near[1:])]
    if not common or not len(evidence):
        return none
    places = [[each.spans.index(name) for name in common] for each in near]
    weight = sum(each.vectors for each in near)
    cosines = sum(each.vectors * each.cosines[:, own] for each, own in zip(near, places, strict=True)) / weight
    apart = np.any([each.cosines[:, own] == 0 for each, own in zip(near, places, strict=True)], axis=0)
    shares = shares_of(np.where(apart, -1, cosines).astype(np.float32))
    rows, taught = np.nonzero(shares)
    if not len(rows):
        return none
    files = near[0].said.shape[2]
    said = np.empty((len(rows), len(columns), files), dtype=np.float32)
    for feature, column in enumerate(columns):
        if column is None:  # the same of all types, or in context
            said[:, feature, :-1] = evidence[rows, feature, : files - 1]
            said[:, feature, -1] = evidence[rows, feature, -1]
        else:
            which, own = column
            said[:, feature] = near[which].said[np.asarray(places[which])[taught], own]
    numbers = {label: number for number, label in enumerate(labels)}
    taught_as = [near[0].labels[place] for place in places[0]]
    if unknown := set(taught_as) - numbers.keys():
        raise ValueError(f"{min(unknown)!r} is none of the pool's types")
    wanted = np.asarray([numbers[label] for label in taught_as], dtype=np.int64)
    missing = shortfall(combination.log_probabilities(said), combination.threshold, wanted[taught], len(labels))
    np.add.at(none, rows, shares[rows, taught][:, None] * missing)
    return none
