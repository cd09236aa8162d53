"""What a pool's labelled spans say of a new one, as log-probabilities over the types and none. None of it is trained.

*Neighbours*: a vote of the most similar spans of the pool. *Prototypes*: how near the span is to each type's mean, by a
covariance that all types share (the linear discriminant of Fisher, in closed form). Neither is in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Prototypes", "log_softmax", "neighbours"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEIGHBOURS: Final = 32
SHARPNESS: Final = 15.0
"""A neighbour's vote is exp(SHARPNESS · cosine)."""
PRIOR_SHARE: Final = 0.05
"""Of the votes' sum: what the types' frequencies add, so that no probability is 0."""
SHRINKAGE: Final = 0.3
"""Of the shared covariance towards a sphere: a pool has fewer spans of a type than vectors have dimensions."""
_ROWS: Final = 2_048


def log_softmax(scores: Floats) -> Floats:
    """Over the last axis."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def neighbours(
    queries: Floats,
    known: Floats,
    labels: Ints,
    kinds: int,
    *,
    apart: tuple[Ints, Ints] | None = None,
) -> Floats:
    """Log-probabilities ``[queries, kinds]`` by the :data:`NEIGHBOURS` most similar spans.

    Args:
        queries: ``[queries, dimensions]``, unit length.
        known: ``[spans, dimensions]``, unit length.
        labels: of the known spans.
        kinds: how many types there are, none included.
        apart: (sentences of the queries, sentences of the known spans): a span of the query's own sentence has no vote.
            For leave-one-out.
    """
    prior = (np.bincount(labels, minlength=kinds) + 1.0) / (len(labels) + kinds)
    if not len(known):
        return np.tile(np.log(prior).astype(np.float32), (len(queries), 1))
    count = min(NEIGHBOURS, len(known))
    likelihoods = np.empty((len(queries), kinds), dtype=np.float32)
    for start in range(0, len(queries), _ROWS):
        cosines = queries[start : start + _ROWS] @ known.T
        if apart is not None:
            cosines[apart[0][start : start + _ROWS, None] == apart[1][None, :]] = -np.inf  # a vote of nothing
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        weights = np.exp(SHARPNESS * (np.take_along_axis(cosines, nearest, axis=1) - 1.0))
        votes = np.zeros((len(cosines), kinds), dtype=np.float64)
        rows = np.repeat(np.arange(len(cosines)), count)
        np.add.at(votes, (rows, labels[nearest].ravel()), weights.ravel())
        votes += 1e-30 * prior  # where nobody votes, the frequencies alone
        shares = votes / votes.sum(axis=1, keepdims=True)
        likelihoods[start : start + _ROWS] = np.log((shares + PRIOR_SHARE * prior) / (1 + PRIOR_SHARE))
    return likelihoods


@dataclass(frozen=True, eq=False)
class Prototypes:
    """A linear rule: ``queries @ weights + offsets`` are the log-likelihoods of the types, up to a constant."""

    weights: Floats
    offsets: Floats

    @classmethod
    def of(cls, known: Floats, labels: Ints, kinds: int) -> Prototypes:
        """From spans ``[spans, dimensions]``. A type without any span has the mean of all as its own."""
        dimensions = known.shape[1]
        counts = np.bincount(labels, minlength=kinds)
        if not len(known):
            return cls(np.zeros((dimensions, kinds), np.float32), np.zeros(kinds, np.float32))
        sums = np.stack([known[labels == kind].sum(axis=0, dtype=np.float64) for kind in range(kinds)])
        means = cls.means(counts, sums, known.mean(axis=0))
        apart = known - means[labels].astype(np.float32)
        return cls.by_covariance(counts, means, apart.T @ apart / len(known))

    @staticmethod
    def means(counts: Ints, sums: Doubles, overall: Floats | Doubles) -> Doubles:
        """Each type's ``[kinds, dimensions]``, with one span's worth of the mean of all: rare types are unsure."""
        means: Doubles = (sums + overall) / (counts[:, None] + 1)
        return means

    @classmethod
    def by_covariance(cls, counts: Ints, means: Doubles, covariance: Floats | Doubles) -> Prototypes:
        """From the types' spans and means, and the covariance of spans around them."""
        kinds, dimensions = means.shape
        sphere = np.trace(covariance) / dimensions * np.eye(dimensions, dtype=np.float32)
        shrunken = (1 - SHRINKAGE) * covariance + (SHRINKAGE + 1e-6) * sphere + 1e-9 * np.eye(dimensions)
        weights = np.linalg.solve(shrunken, means.T)
        prior = np.log((counts + 1.0) / (counts.sum() + kinds))
        offsets = prior - 0.5 * (means.T * weights).sum(axis=0)
        return cls(weights.astype(np.float32), offsets.astype(np.float32))

    def of_spans(self, queries: Floats) -> Floats:
        """Log-probabilities ``[queries, kinds]``."""
        return log_softmax(queries @ self.weights + self.offsets)
