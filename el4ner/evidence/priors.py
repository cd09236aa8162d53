"""A stream's mix of types, estimated from answers without labels, and answers as that mix would have them. Pure.

A pool shows types in shares of its own. Where a stream shows them in others, and entities of a type look the same in
both, Bayes' rule says how probabilities change: p'(type) ∝ p(type) · stream's share / pool's share. The stream's
shares are those that explain the answers best, found by expectation maximisation (Saerens, Latinne and Decaestecker
2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural Computation 14, equations 2.4 and
2.9).

Two things are ours. Which share of the candidates are entities (the density) and which shares of the entities the
types have (the mix) are estimated apart, since on dev splits the one paid and the other did not. And both are held near
the pool's, by a Dirichlet prior and by bounds: the probabilities are not exact, and the maximum is flat where types are
rare.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from el4ner.evidence.judges import Doubles, Floats, Ints, log_softmax

__all__ = [
    "LARGEST_RATIO",
    "PRIOR_ENTITIES",
    "Shares",
    "divergence",
    "entity_probability",
    "estimated_density",
    "estimated_mix",
    "log_odds",
    "pool_density",
    "pool_mix",
    "reweighted",
    "with_density",
]

Shares = npt.NDArray[np.float64]
"""Of each type among the entities; they add up to 1."""

LARGEST_RATIO: Final = 10.0
"""A type's share is at most so many times its share in the pool, and at least that part of it."""
PRIOR_ENTITIES: Final = 200.0
"""The pool's mix counts as much as so many entities of the stream (Dirichlet prior)."""
PRIOR_CANDIDATES: Final = 500.0
"""The pool's density counts as much as so many candidates of the stream."""
ITERATIONS: Final = 100
TOLERANCE: Final = 1e-6
"""No share has to move by less."""
_HALVINGS: Final = 60


def pool_mix(labels: Ints, kinds: int) -> Shares:
    """The shares of the types among a pool's candidates that are entities.

    Args:
        labels: of the candidates; ``kinds - 1`` is none.
        kinds: how many types there are, none included.

    Half an entity is added to each type (Krichevsky and Trofimov 1981), so that no share is 0.
    """
    counts = np.bincount(labels, minlength=kinds)[: kinds - 1] + 0.5
    shares: Shares = counts / counts.sum()
    return shares


def pool_density(labels: Ints, kinds: int, weights: Doubles) -> float:
    """The share of entities among a pool's candidates, with half a candidate of either more. See :func:`pool_mix`.
    ``weights``: how often each counts."""
    return float((weights[labels < kinds - 1].sum() + 0.5) / (weights.sum() + 1.0))


def estimated_density(log_probabilities: Floats, pool: float) -> float:
    """The stream's density, by the calibrated ``[spans, types + none]`` of its candidates under the pool's density."""
    entity = np.clip(entity_probability(log_probabilities), 1e-9, 1 - 1e-9)
    least, most = pool / LARGEST_RATIO, min(pool * LARGEST_RATIO, (1 + pool) / 2)
    density = pool
    for _ in range(ITERATIONS):
        expected = entity * (density / pool)
        expected /= expected + (1 - entity) * ((1 - density) / (1 - pool))
        moved = (float(expected.sum()) + PRIOR_CANDIDATES * pool) / (len(entity) + PRIOR_CANDIDATES)
        moved = min(max(moved, least), most)
        settled = abs(moved - density) < TOLERANCE
        density = moved
        if settled:
            break
    return density


def log_odds(probability: float) -> float:
    """Of a probability above 0 and below 1."""
    return math.log(probability) - math.log1p(-probability)


def with_density(log_probabilities: Floats, shift: float) -> Floats:
    """``[spans, types + none]`` with the log-odds of being an entity moved by ``shift``, whatever its type."""
    moved = log_probabilities.copy()
    moved[:, :-1] += np.float32(shift)
    return log_softmax(moved)


def estimated_mix(log_probabilities: Floats, pool: Shares) -> Shares:
    """The stream's mix, by the calibrated ``[spans, types + none]`` of its candidates under the pool's mix.

    It is the pool's where there are no candidates.
    """
    entity, among_types = _apart(log_probabilities)
    total = float(entity.sum())
    mix = pool
    for _ in range(ITERATIONS):
        expected = among_types * (mix / pool)
        expected *= (entity / np.maximum(expected.sum(axis=1), 1e-300))[:, None]
        counts = expected.sum(axis=0) + PRIOR_ENTITIES * pool
        moved = _bounded(counts / (total + PRIOR_ENTITIES), pool)
        settled = float(np.abs(moved - mix).max()) < TOLERANCE
        mix = moved
        if settled:
            break
    return mix


def reweighted(log_probabilities: Floats, ratios: Shares) -> Floats:
    """``[spans, types + none]`` with each type's probability times its ratio; that of none stays.

    Args:
        log_probabilities: normalised.
        ratios: of the types, above 0: the stream's share by the pool's.
    """
    types = log_probabilities[:, :-1]
    weighted = types + np.log(ratios).astype(np.float32)
    # In logarithms throughout: types that are next to impossible keep their order.
    weighted += (_log_sum(types) - _log_sum(weighted))[:, None]
    result: Floats = np.concatenate([weighted, log_probabilities[:, -1:]], axis=1)
    return result


def divergence(first: Shares, second: Shares) -> float:
    """How far apart two mixes are, in bits: 0 where they are equal, 1 where they share no type (Jensen-Shannon
    divergence; Lin 1991)."""
    middle = (first + second) / 2
    apart = sum(
        0.5 * float((shares[shares > 0] * np.log2(shares[shares > 0] / middle[shares > 0])).sum())
        for shares in (first, second)
    )
    return min(1.0, max(0.0, apart))


def entity_probability(log_probabilities: Floats) -> Shares:
    """``[spans]``: that it is an entity of whatever type."""
    probability: Shares = np.exp(log_probabilities[:, :-1].astype(np.float64)).sum(axis=1)
    return probability


def _apart(log_probabilities: Floats) -> tuple[Shares, Shares]:
    """The probability of being an entity ``[spans]``, and the types' probabilities if it is one ``[spans, types]``."""
    types = np.exp(log_probabilities[:, :-1].astype(np.float64))
    entity = types.sum(axis=1)
    return entity, types / np.maximum(entity, 1e-300)[:, None]


def _bounded(shares: Shares, pool: Shares) -> Shares:
    """Scaled and cut such that they lie within the bounds and add up to 1."""
    low, high = pool / LARGEST_RATIO, np.minimum(pool * LARGEST_RATIO, 1.0)
    if (low <= shares).all() and (shares <= high).all():
        return shares
    # The sum of what is cut grows with the scale: from all at the lower bound to all at the upper one.
    smallest, largest = 0.0, float((high / np.maximum(shares, 1e-300)).max())
    for _ in range(_HALVINGS):
        scale = (smallest + largest) / 2
        if np.clip(shares * scale, low, high).sum() < 1.0:
            smallest = scale
        else:
            largest = scale
    cut: Shares = np.clip(shares * largest, low, high)
    cut /= cut.sum()
    return cut


def _log_sum(scores: Floats) -> Floats:
    """Over the last axis."""
    largest = scores.max(axis=-1)
    result: Floats = largest + np.log(np.exp(scores - largest[..., None]).sum(axis=-1))
    return result
