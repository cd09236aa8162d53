"""Several judges' log-probabilities into one: a weighted sum, calibrated, and a threshold for what is reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from el4ner.evidence.judges import Doubles, Floats, Ints, log_softmax

__all__ = ["Combination", "Decisions", "decide", "fit", "fit_confidence"]

RIDGE = 0.05
"""Spreads the weight over judges that agree, and keeps it small where a pool says little. Chosen on development splits:
of 0.001, 0.01 and 0.05 it gave an ensemble the most over its best member."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """For each span: the index of the chosen type (the last one is none), the calibrated probability of that type, and
    how far it is ahead of the next one in the decision, in [0, 1]."""

    chosen: Ints
    confidence: Floats
    margin: Floats


@dataclass(frozen=True, slots=True)
class Combination:
    """log p(type) = Σ weight · log p of each judge (+ ``none_bias`` for none), normalised.

    An entity is reported where its log-probability is above that of none plus ``threshold``: below 0 more is reported
    than would be most likely right, since F1 rewards recall too.

    Of spans that overlap only the likeliest is reported, so a reported entity is right more often than its probability
    says. Its confidence is therefore σ(``slope`` · logit p + ``offset``) (Platt 1999), as found on reported entities.
    """

    weights: tuple[float, ...]
    none_bias: float = 0.0
    threshold: float = 0.0
    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def even(cls, features: int) -> Combination:
        """Every judge counts the same: where nothing could be estimated."""
        return cls((1.0 / max(1, features),) * features)

    def log_probabilities(self, evidence: Floats) -> Floats:
        """``[spans, features, types + none]`` → ``[spans, types + none]``."""
        scores: Floats = np.einsum("sfk,f->sk", evidence, np.asarray(self.weights, dtype=np.float32))
        scores[:, -1] += self.none_bias
        return log_softmax(scores)

    def decide(self, evidence: Floats) -> Decisions:
        """The choice for every span."""
        return self.decide_by(self.log_probabilities(evidence))

    def decide_by(self, log_probabilities: Floats) -> Decisions:
        """As :meth:`decide`, by what :meth:`log_probabilities` gave, corrected or not."""
        chosen = decide(log_probabilities, self.threshold)
        entity = chosen.chosen < log_probabilities.shape[1] - 1
        return replace(chosen, confidence=np.where(entity, self.confidence(chosen.confidence), chosen.confidence))

    def confidence(self, probability: Floats) -> Floats:
        """How often a reported entity of that probability is right."""
        confidence: Floats = 1 / (1 + np.exp(-(self.slope * _logit(probability) + self.offset)))
        return confidence


def _minimize(*arguments: Any, **options: Any) -> Any:
    """:func:`scipy.optimize.minimize`, imported here: it takes a second, and mostly the weights are in a file."""
    from scipy.optimize import minimize

    return minimize(*arguments, **options)


def _logit(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    logit: Floats = np.log(inside) - np.log1p(-inside)
    return logit


def fit_confidence(
    combination: Combination, probability: Floats, right: npt.NDArray[np.bool_], weights: Doubles | None = None
) -> Combination:
    """With the slope (above 0) and offset that make ``right`` most likely, kept near 1 and 0 where there is little.
    ``weights``: how often each counts; None: once."""
    logits = _logit(probability).astype(np.float64)
    weights = np.ones(len(logits)) if weights is None else weights

    def loss(values: npt.NDArray[np.float64]) -> float:
        signs = np.where(right, -1.0, 1.0)
        errors = (weights * np.logaddexp(0.0, signs * (values[0] * logits + values[1]))).sum()
        return float(errors + (values[0] - 1.0) ** 2 + values[1] ** 2)

    slope, offset = _minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.05, None), (None, None)]).x
    return replace(combination, slope=round(float(slope), 4), offset=round(float(offset), 4))


def decide(log_probabilities: Floats, threshold: float) -> Decisions:
    """The choice for every span by log-probabilities and the threshold; the confidence is the chosen type's own."""
    shifted = log_probabilities.copy()
    shifted[:, -1] += threshold
    odds = np.exp(log_softmax(shifted))
    chosen = odds.argmax(axis=1)
    rows = np.arange(len(odds))
    ordered = np.sort(odds, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    return Decisions(chosen, np.exp(log_probabilities[rows, chosen]), margin)


def fit(evidence: Floats, labels: Ints, weights: Doubles | None = None) -> Combination:
    """Weights (never negative) and the bias of none that make the labels most likely, without a threshold.

    Args:
        evidence: ``[spans, features, types + none]``, none of it from the span's own label.
        labels: ``[spans]``.
        weights: how often each span counts, ``[spans]``; None: once.
    """
    spans, features, _ = evidence.shape
    rows = np.arange(spans)
    weights = np.ones(spans) if weights is None else weights
    count = weights.sum()

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scores = np.einsum("sfk,f->sk", evidence, values[:features].astype(np.float32)).astype(np.float64)
        scores[:, -1] += values[features]
        scores -= scores.max(axis=1, keepdims=True)
        likely = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        wrong = np.exp(likely)
        value = -(weights * likely[rows, labels]).sum() / count + RIDGE * float((values[:features] ** 2).sum())
        wrong[rows, labels] -= 1.0
        wrong *= weights[:, None]
        slope = np.einsum("sk,sfk->f", wrong.astype(np.float32), evidence) / count
        return value, np.append(slope + 2 * RIDGE * values[:features], wrong[:, -1].sum() / count)

    start = np.append(np.full(features, 1.0 / features), 0.0)
    bounds = [(0.0, None)] * features + [(None, None)]
    best = _minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Combination(tuple(round(float(weight), 4) for weight in best[:features]), round(float(best[features]), 4))
