"""What was taught counts where it is used alike: beside what a pool's spans say of a new one, what a person said of it.

A pool has hundreds of spans, and one more hardly moves what they say together. But it was taught because they were
wrong. So each taught span keeps by how much they were, and a new span that is used as it is gets as much added: all of
it at a cosine of :data:`ALIKE`, nothing at :data:`APART`. What the pool had right already adds nothing and speaks
against changing it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from el4ner.evidence.calibration import NEVER, Calibration, Step
from el4ner.evidence.combination import Combination
from el4ner.evidence.judges import Floats, Ints
from el4ner.evidence.sources import TAUGHT, BoundarySource, SentenceQuestion, Source, StateSource
from el4ner.evidence.span_memory import PoolSpans
from el4ner.types import Usage

__all__ = ["CorrectionSource", "mean_cosines", "shares_of", "shortfall", "shortfalls", "with_corrections"]

APART: Final = 0.55
ALIKE: Final = 0.75
"""Cosines, the mean over members and layers. In the shipped pools two mentions of one name with one type have 0.56 to
0.78 (80 % of them), with different types 0.34 to 0.68; of spans of different types 999 in 1,000 have less than 0.4."""
SHARPNESS: Final = 30.0
"""What was taught counts exp(SHARPNESS · cosine) against what else was taught."""
AHEAD: Final = 2.0
"""By so much log-odds what was taught is ahead where it is taught: a probability of 0.88."""
MOST: Final = 12.0
"""No correction adds more."""


class CorrectionSource:
    """By how much what was taught corrects what the other sources say together.

    Args:
        sources: those that compare states. What they have read of a question last is not read again.
        keys: for each of them the taught spans' vectors ``[layers, taught, dimensions]``.
        corrections: ``[taught, types + none]``: what was missing.
        fingerprint: of what was taught.
    """

    features = ("corrections",)
    name = voter = TAUGHT

    def __init__(
        self, sources: Sequence[StateSource], keys: Mapping[str, Floats], corrections: Floats, fingerprint: str
    ) -> None:
        self._sources = sources
        self._keys = keys
        self._corrections = corrections
        self.fingerprint = f"{TAUGHT} {fingerprint}"

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        """The mean of the corrections, each as far as it is used alike, and most of the nearest: parts of one name look
        like each other. Nothing where none is alike."""
        cosines, _, usage = mean_cosines(self._sources, self._keys, questions)
        said: Floats = shares_of(cosines) @ self._corrections
        ends = np.cumsum([len(question.spans) for question in questions])
        return list(np.split(said[:, None, :], ends))[:-1], usage

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        """Nobody weighs it: what a person said counts as it is."""
        del spans, sentences
        return np.zeros((len(rows), 1, self._corrections.shape[1]), np.float32)


def mean_cosines(
    sources: Sequence[StateSource], keys: Mapping[str, Floats], questions: Sequence[SentenceQuestion]
) -> tuple[Floats, int, Usage]:
    """``[spans of all questions, taught]``, and of how many vectors each is the mean."""
    taught = next(iter(keys.values())).shape[1]
    cosines = np.zeros((sum(len(question.spans) for question in questions), taught), dtype=np.float32)
    count, usage = 0, Usage()
    for source in sources:
        queries, used = source.vectors(questions)
        usage += used
        for known, vectors in zip(keys[source.name], queries, strict=True):
            cosines += vectors @ known.T
            count += 1
    cosines /= max(1, count)
    return cosines, count, usage


def shares_of(cosines: Floats) -> Floats:
    """By how much of its correction each taught span counts: ``[spans, taught]``, of any shape before."""
    near = np.clip((cosines - APART) / (ALIKE - APART), 0, 1)
    nearest = cosines.max(axis=1, keepdims=True, initial=-1)
    votes = np.where(near > 0, np.exp(SHARPNESS * (cosines - nearest)), 0)
    shares: Floats = votes * near / np.maximum(votes.sum(axis=1, keepdims=True), 1e-9)
    return shares


def shortfalls(
    sources: Sequence[Source],
    combination: Combination,
    compared: Mapping[str, Floats],
    likely: npt.NDArray[np.float64],
    labels: Ints,
    kinds: int,
) -> Floats:
    """What has to be added to what a pool's files say of taught spans, so that each is what it was taught to be:
    ``[taught, types + none]``.

    Args:
        sources: of the files, in the combination's order. Those that would have to ask a model say nothing.
        combination: of all of them.
        compared: ``[taught, features, types of the files + none]``: what those that compare states say of the taught
            spans, by the source's name.
        likely: the probability of each that extraction found; NaN: none.
        labels: of each.
        kinds: how many types there are now, none included; those that the files do not have are the last ones.
    """
    said = []
    files = max((source.kinds for source in sources if isinstance(source, StateSource | BoundarySource)), default=kinds)
    for source in sources:
        if isinstance(source, StateSource):
            said.append(compared[source.name])
        elif isinstance(source, BoundarySource):
            said.append(source.said(likely))
        else:
            said.append(np.zeros((len(labels), len(source.features), files), np.float32))
    before = combination.log_probabilities(np.concatenate(said, axis=1))
    return shortfall(before, combination.threshold, labels, kinds)


def shortfall(before: Floats, threshold: float, labels: Ints, kinds: int) -> Floats:
    """What is missing in log-probabilities ``[spans, types of the files + none]`` so that each span is what it was
    taught to be: ``[spans, types + none]``, of ``kinds`` types now, none included."""
    files = before.shape[1]
    scores = np.full((len(labels), kinds), before.min(axis=1, keepdims=True, initial=0), dtype=np.float32)
    scores[:, : files - 1] = before[:, :-1]
    scores[:, -1] = before[:, -1] + threshold
    rows = np.arange(len(labels))
    taught = scores[rows, labels]
    scores[rows, labels] = -np.inf
    missing = np.zeros((len(labels), kinds), dtype=np.float32)
    missing[rows, labels] = np.clip(scores.max(axis=1, initial=-np.inf) - taught + AHEAD, 0, MOST)
    return missing


def with_corrections(calibration: Calibration) -> Calibration:
    """With one more step: what was taught is added to what the others say, of every span."""
    last = calibration.steps[-1]
    weighed = replace(last.combination, weights=(*last.combination.weights, 1.0))
    before = [replace(step, margin=NEVER) for step in calibration.steps]
    return replace(calibration, steps=(*before, Step(TAUGHT, weighed, None, None)))
