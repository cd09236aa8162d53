"""Where entities begin, go on and end, by the hidden states of a sentence's words: ridge regression in closed form.

Not in the paper. A linear probe of a model's states (Alain and Bengio, 2016) for three questions about each word: does
an entity begin with it, does one end with it, is it inside of one. It is solved, not trained: one system of linear
equations for a pool. What it would say of a sentence without that sentence comes from the same solution, since the
residuals of a left-out block are (I − H)⁻¹ times those of the fit, H being the block of the hat matrix (Allen, 1974).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from el4ner.evidence.judges import Floats

__all__ = ["BEGIN", "END", "INSIDE", "BoundaryProbe", "in_context", "questions_of"]

BEGIN, END, INSIDE = range(3)
"""The columns of what the probe says of a word."""
RIDGE: Final = 1.0
"""Times the number of features, which are standardised. Of 0.1, 0.3, 1, 3 and 10 the best on development splits."""
_CHUNK: Final = 2_000
"""Words."""
_LEAST_SPREAD: Final = 5e-3
"""Of the largest: a dimension that hardly moves would be blown up."""


def in_context(states: Floats) -> Floats:
    """A sentence's words with the ones beside them: ``[words, dimensions]`` → ``[words, 3 · dimensions]``: the word
    before, the word, the word after; zeros where there is none."""
    before, after = np.zeros_like(states), np.zeros_like(states)
    before[1:], after[:-1] = states[:-1], states[1:]
    return np.concatenate([before, states, after], axis=1)


def questions_of(words: Sequence[tuple[int, int]], entities: Sequence[tuple[int, int]]) -> Floats:
    """The right answers ``[words, 3]``: 1 where an entity begins, ends, is; 0 elsewhere. Places are code points; a word
    is inside of an entity if all of it is."""
    answers = np.zeros((len(words), 3), dtype=np.float32)
    for start, end in entities:
        inside = [index for index, word in enumerate(words) if start <= word[0] and word[1] <= end]
        if inside:
            answers[inside[0], BEGIN] = answers[inside[-1], END] = 1.0
            answers[inside, INSIDE] = 1.0
    return answers


@dataclass(frozen=True, eq=False)
class BoundaryProbe:
    """``(features − centre) / scale @ weights + offsets`` are log-odds. ``weights`` ``[3 · dimensions, 3]``."""

    centre: Floats
    scale: Floats
    weights: Floats
    offsets: Floats

    def log_odds(self, states: Floats) -> Floats:
        """Of one sentence's words: ``[words, dimensions]`` → ``[words, 3]``."""
        standard = (in_context(states) - self.centre) / self.scale
        odds: Floats = (standard @ self.weights + self.offsets).astype(np.float32)
        return odds

    @classmethod
    def of(cls, states: Sequence[Floats], answers: Sequence[Floats]) -> tuple[BoundaryProbe, list[Floats]]:
        """From a pool's sentences, at least one word in all.

        Args:
            states: of each sentence's words, ``[words, dimensions]``.
            answers: as :func:`questions_of` gives them.

        Returns:
            The probe, and for each sentence the log-odds ``[words, 3]`` of a probe that never saw it.
        """
        from scipy.linalg import cho_factor, cho_solve, solve_triangular

        right = np.concatenate(answers).astype(np.float64)
        mean = right.mean(axis=0)
        centre, scale = _spread(states)
        gram = np.diag(np.full(len(centre), RIDGE * len(centre)))
        target = np.zeros((len(centre), 3))
        for rows, sentences in _chunks(states):
            known = (_features(sentences) - centre) / scale
            gram += known.T @ known
            target += known.T @ (right[rows] - mean)
        factor = np.asfortranarray(cho_factor(gram, lower=True, overwrite_a=True)[0])
        weights = cho_solve((factor, True), target)
        left_out = np.empty_like(right)
        for rows, sentences in _chunks(states):
            known = (_features(sentences) - centre) / scale
            residual = right[rows] - mean - known @ weights
            half = solve_triangular(factor, known.T, lower=True, check_finite=False)
            first = 0
            for of_sentence in sentences:
                inside = slice(first, first := first + len(of_sentence))
                leverage = half[:, inside].T @ half[:, inside]
                residual[inside] = np.linalg.solve(np.eye(len(of_sentence)) - leverage, residual[inside])
            left_out[rows] = right[rows] - mean - residual
        slopes, offsets = np.array([_platt(left_out[:, question], right[:, question]) for question in range(3)]).T
        probe = cls(
            centre.astype(np.float32),
            scale.astype(np.float32),
            (weights * slopes).astype(np.float32),
            offsets.astype(np.float32),
        )
        odds = (left_out * slopes + offsets).astype(np.float32)
        return probe, np.split(odds, np.cumsum([len(of_sentence) for of_sentence in states])[:-1])


def _features(states: Sequence[Floats]) -> npt.NDArray[np.float64]:
    return np.concatenate([in_context(of_sentence) for of_sentence in states]).astype(np.float64)


def _chunks(states: Sequence[Floats]) -> Iterator[tuple[slice, Sequence[Floats]]]:
    """Some sentences at a time, with the rows of their words: the features of a whole pool may take a gigabyte."""
    first, waiting, words = 0, list[Floats](), 0
    for of_sentence in states:
        waiting.append(of_sentence)
        words += len(of_sentence)
        if words >= _CHUNK:
            yield slice(first, first := first + words), waiting
            waiting, words = [], 0
    if waiting:
        yield slice(first, first + words), waiting


def _spread(states: Sequence[Floats]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and spread of the features."""
    words = sum(len(of_sentence) for of_sentence in states)
    centre = np.sum([_features(sentences).sum(axis=0) for _, sentences in _chunks(states)], axis=0) / words
    squares = np.sum([((_features(sentences) - centre) ** 2).sum(axis=0) for _, sentences in _chunks(states)], axis=0)
    spread = np.sqrt(squares / words)
    return centre, np.maximum(spread, _LEAST_SPREAD * max(float(spread.max()), 1e-6))


def _platt(scores: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Slope and offset that make scores log-odds (Platt, 1999)."""
    from scipy.optimize import minimize

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        odds = values[0] * scores + values[1]
        wrong = 1 / (1 + np.exp(-np.clip(odds, -60, 60))) - right
        value = np.logaddexp(0.0, np.where(right > 0, -odds, odds)).mean() + 1e-4 * values[0] ** 2
        return float(value), np.array([(wrong * scores).mean() + 2e-4 * values[0], wrong.mean()])

    best: Any = minimize(loss, np.array([5.0, -2.0]), jac=True, method="L-BFGS-B")
    return float(best.x[0]), float(best.x[1])
