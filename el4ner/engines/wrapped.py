"""An engine around another one, whose name and answers it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from typing_extensions import override

from el4ner.engines.base import (
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    StateResult,
)

__all__ = ["Call", "RelayedEngine", "WrappedEngine"]

R = TypeVar("R")


class Call(Protocol):
    """Calls a function somewhere, and returns or raises what it does."""

    def __call__(self, function: Callable[[], R], /) -> R:
        """What ``function()`` gives."""


class WrappedEngine:
    """A :class:`~el4ner.engines.base.StateEngine` that asks another one about everything.

    Args:
        engine: what is asked. Closing this one closes it.
    """

    def __init__(self, engine: StateEngine) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    @property
    def fingerprint(self) -> str:
        """The engine's: the answers are the same."""
        return self._engine.fingerprint

    @property
    def states_fingerprint(self) -> str:
        """The engine's."""
        return self._engine.states_fingerprint

    @property
    def context_length(self) -> int:
        """The engine's."""
        return self._engine.context_length

    @property
    def hidden_size(self) -> int:
        """The engine's."""
        return self._engine.hidden_size

    def count_tokens(self, prompt: Prompt) -> int:
        """The engine's."""
        return self._engine.count_tokens(prompt)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """The engine's."""
        return self._engine.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """The engine's."""
        return self._engine.score(requests)

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        """The engine's."""
        return self._engine.states(requests)

    def close(self) -> None:
        """Closes the engine."""
        self._engine.close()


class RelayedEngine(WrappedEngine):
    """One whose answers are asked for by ``call``: on the thread that owns the engine, say.

    Args:
        engine: what is asked. Its owner closes it.
        call: makes every call that the model or its tokenizer answers.
    """

    def __init__(self, engine: StateEngine, call: Call) -> None:
        super().__init__(engine)
        self._call = call

    @override
    def count_tokens(self, prompt: Prompt) -> int:
        return self._call(lambda: self._engine.count_tokens(prompt))

    @override
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        return self._call(lambda: self._engine.generate(requests))

    @override
    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        return self._call(lambda: self._engine.score(requests))

    @override
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        return self._call(lambda: self._engine.states(requests))

    @override
    def close(self) -> None:
        return
