"""Asking an engine, and not believing everything that it says.

An engine may be another process, a kernel on a device, or code of others. What it answers is checked once, here, where
it is known who answered: as many results as were asked for, numbers that are numbers, log-probabilities that are none
above 0. An answer of another form is an :class:`~el4ner.errors.EngineError` with the code ``engine-garbage``: the batch
is tried in halves, and a document on which it happens alone is given up, like any other that an engine fails on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from el4ner.engines.base import (
    LAYERS,
    Engine,
    GenerateRequest,
    GenerateResult,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    StateResult,
)
from el4ner.errors import EngineError

__all__ = ["generate", "score", "states"]

_ABOVE_ZERO: Final = 1e-3
"""What rounding may add to a log-probability of 0."""


def generate(engine: Engine, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
    """:meth:`Engine.generate`, checked.

    Raises:
        EngineError: the engine's own, or ``engine-garbage``.
    """
    results = engine.generate(requests)
    _as_many(engine, results, requests)
    for result in results:
        if not isinstance(result.text, str):
            raise _garbage(engine, f"generated {type(result.text).__name__} instead of text")
    return results


def score(engine: Engine, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
    """:meth:`Engine.score`, checked.

    Raises:
        EngineError: the engine's own, or ``engine-garbage``.
    """
    results = engine.score(requests)
    _as_many(engine, results, requests)
    for request, result in zip(requests, results, strict=True):
        asked, got = [len(item.candidates) for item in request.items], [len(scores) for scores in result.scores]
        if asked != got:
            raise _garbage(engine, f"gave {sum(got)} scores in {len(got)} lists for {sum(asked)} candidates")
        for scores in result.scores:
            for one in scores:
                if not -math.inf < one.logprob <= _ABOVE_ZERO:  # nor is it NaN
                    raise _garbage(engine, f"gave a log-probability of {one.logprob}")
    return results


def states(engine: StateEngine, requests: Sequence[StateRequest]) -> list[StateResult]:
    """:meth:`StateEngine.states`, checked.

    Raises:
        EngineError: the engine's own, or ``engine-garbage``.
    """
    results = engine.states(requests)
    _as_many(engine, results, requests)
    for request, result in zip(requests, results, strict=True):
        expected = (sum(map(len, request.ends)), LAYERS, engine.hidden_size)
        if result.states.shape != expected:
            raise _garbage(engine, f"gave states of the shape {result.states.shape} instead of {expected}")
        if not np.isfinite(result.states).all():
            raise _garbage(engine, "gave states that are no numbers")
    return results


def _as_many(engine: Engine, results: Sequence[object], requests: Sequence[object]) -> None:
    if len(results) != len(requests):
        raise _garbage(engine, f"gave {len(results)} results to {len(requests)} requests")


def _garbage(engine: Engine, what: str) -> EngineError:
    return EngineError(f"{engine.name} {what}", code="engine-garbage")
