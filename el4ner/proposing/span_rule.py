"""From what a probe says of words to how likely a span is an entity: some numbers a span, and one logistic rule."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from el4ner.evidence.judges import Floats, Ints
from el4ner.proposing.boundary_probe import BEGIN, END, INSIDE

__all__ = ["FEATURES", "MAX_WORDS", "SpanRule", "Spans", "features_of", "worth_asking"]

MAX_WORDS: Final = 15
"""Of a span that nobody else proposes."""
FEATURES: Final = 7
_RIDGE: Final = 1e-3


class Spans(NamedTuple):
    """Spans of a sentence, and what is known of each.

    ``first``, ``last``: indices of words, inclusive. ``features`` ``[spans, FEATURES]``: log-probabilities that an
    entity begins with the first word, ends with the last one, and goes on in between (mean and least), whether the
    chunker proposes the span, whether the lexicon does, and the square root of its number of words.
    """

    first: Ints
    last: Ints
    features: Floats


def features_of(
    log_odds: Floats, chunked: Collection[tuple[int, int]], in_lexicon: Collection[tuple[int, int]]
) -> Spans:
    """Every span of at most :data:`MAX_WORDS` words, and those that the chunker or the lexicon proposes.

    Args:
        log_odds: of the words, ``[words, 3]``.
        chunked, in_lexicon: (first word, last word) of what they propose.
    """
    likely = -np.logaddexp(0.0, -log_odds.astype(np.float64))
    words = len(likely)
    firsts, lasts, least = [], [], []
    lowest = likely[:, INSIDE]
    for more in range(min(MAX_WORDS, words)):
        if more:
            lowest = np.minimum(lowest[:-1], likely[more:, INSIDE])
        firsts.append(np.arange(words - more))
        lasts.append(np.arange(more, words))
        least.append(lowest)
    for begin, end in sorted({*chunked, *in_lexicon}):
        if end - begin >= MAX_WORDS:
            firsts.append(np.array([begin]))
            lasts.append(np.array([end]))
            least.append(likely[begin : end + 1, INSIDE].min(keepdims=True))
    if not firsts:
        nowhere = np.zeros(0, dtype=np.int64)
        return Spans(nowhere, nowhere, np.zeros((0, FEATURES), dtype=np.float32))
    first, last = np.concatenate(firsts), np.concatenate(lasts)
    length = last - first + 1
    total = np.concatenate([[0.0], np.cumsum(likely[:, INSIDE])])
    code = first * words + last
    columns = [
        likely[first, BEGIN],
        likely[last, END],
        (total[last + 1] - total[first]) / length,
        np.concatenate(least),
        *(np.isin(code, [start * words + end for start, end in proposed]) for proposed in (chunked, in_lexicon)),
        np.sqrt(length),
    ]
    return Spans(first, last, np.stack(columns, axis=1).astype(np.float32))


def worth_asking(features: Floats, words: int) -> Ints:
    """Rows of the spans of a sentence that a rule is made from: the ``words`` likeliest by begin, end and inside, and
    those that the chunker or the lexicon proposes. The many that are no entity by far would decide it otherwise."""
    rough = features[:, :3].sum(axis=1)
    likeliest = np.argsort(-rough, kind="stable")[:words]
    return np.union1d(likeliest, np.flatnonzero(features[:, 4:6].any(axis=1)))


@dataclass(frozen=True, slots=True)
class SpanRule:
    """log-odds(entity) = features · ``weights`` + ``offset``."""

    weights: tuple[float, ...]
    offset: float

    def log_odds(self, features: Floats) -> Floats:
        """``[spans, FEATURES]`` → ``[spans]``."""
        odds: Floats = features @ np.asarray(self.weights, dtype=np.float32) + np.float32(self.offset)
        return odds

    @classmethod
    def of(cls, features: Floats, right: npt.NDArray[np.bool_]) -> SpanRule:
        """By maximum likelihood with a small ridge: features of a pool's spans, and whether each is an entity."""
        from scipy.optimize import minimize

        known = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1).astype(np.float64)
        shrunk = np.append(np.full(features.shape[1], _RIDGE), 0.0)

        def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            odds = known @ values
            wrong = 1 / (1 + np.exp(-np.clip(odds, -60, 60))) - right
            value = np.logaddexp(0.0, np.where(right, -odds, odds)).mean() + float(shrunk @ values**2)
            return float(value), known.T @ wrong / len(known) + 2 * shrunk * values

        start = np.zeros(known.shape[1])
        best: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1_000})
        weights = tuple(round(float(weight), 5) for weight in best.x[:-1])
        return cls(weights, round(float(best.x[-1]), 5))
