"""Test doubles: engines that record what they were asked and answer from a script."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np

from el4ner.engines.base import (
    LAYERS,
    CandidateScore,
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreRequest,
    ScoreResult,
    StateRequest,
    StateResult,
    States,
)
from el4ner.errors import EngineError
from el4ner.types import Usage


class ToldProgress:
    """Progress that keeps all that it is told: ``(label, total)``, steps, ``"done"``."""

    def __init__(self) -> None:
        self.told: list[object] = []

    @property
    def labels(self) -> list[str]:
        return [label for label, _ in (each for each in self.told if isinstance(each, tuple))]

    def start(self, label: str, total: int) -> None:
        self.told.append((label, total))

    def advance(self, steps: int) -> None:
        self.told.append(steps)

    def done(self) -> None:
        self.told.append("done")


class ScriptedEngine:
    """Answers by functions of the request; keeps every request. A token is a byte."""

    def __init__(
        self,
        name: str,
        *,
        write: Callable[[GenerateRequest], str] = lambda request: "",
        prefer: Callable[[str, tuple[str, ...]], str] = lambda tail, candidates: candidates[0],
        context_length: int = 8192,
    ) -> None:
        self.name = name
        self.fingerprint = f"{name}-fingerprint"
        self.context_length = context_length
        self.write = write
        self.prefer = prefer
        self.generated: list[GenerateRequest] = []
        self.scored: list[ScoreRequest] = []

    def count_tokens(self, prompt: Prompt) -> int:
        return len(f"{prompt.system}{prompt.user}{prompt.answer}".encode())

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self.generated.extend(requests)
        return [GenerateResult(self.write(request), True, Usage(10, 0, 2)) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        self.scored.extend(requests)
        return [
            ScoreResult(
                tuple(
                    tuple(
                        CandidateScore(math.log(0.9 if c == self.prefer(item.tail, item.candidates) else 0.01), 1)
                        for c in item.candidates
                    )
                    for item in request.items
                ),
                Usage(10, 5, 0),
            )
            for request in requests
        ]

    def close(self) -> None:
        pass


Show = Callable[[Prompt, str], States]


def drawn(*parts: str, hidden_size: int = 8) -> States:
    """Normal numbers ``[LAYERS, hidden_size]`` that depend on nothing but the parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return rng.standard_normal((LAYERS, hidden_size)).astype(np.float32)


def states_by_type(types: Sequence[str], type_of: Callable[[str], str], *, noise: float = 0.3) -> Show:
    """States that tell ``type_of(tail)`` (one of ``types``), each in a direction of its own, up to some noise."""

    def show(prompt: Prompt, tail: str) -> States:
        states = noise * drawn(prompt.user, tail)
        states[:, types.index(type_of(tail))] += 1.0
        return states

    return show


class ScriptedStateEngine(ScriptedEngine):
    """A scripted engine that also shows states: ``[LAYERS, 8]`` numbers, by a function of prompt and tail. At a mark
    they are those of the tail that is cut there.

    Keeps every request in ``shown``.
    """

    hidden_size = 8

    def __init__(
        self,
        name: str,
        *,
        show: Show = lambda prompt, tail: drawn(prompt.system, prompt.user, prompt.answer, tail),
        prefer: Callable[[str, tuple[str, ...]], str] = lambda tail, candidates: candidates[0],
        context_length: int = 8192,
    ) -> None:
        super().__init__(name, prefer=prefer, context_length=context_length)
        self.states_fingerprint = f"{name}-states"
        self.show = show
        self.shown: list[StateRequest] = []

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        self.shown.extend(requests)
        return [self._states(request) for request in requests]

    def _states(self, request: StateRequest) -> StateResult:
        if not all(request.tails):
            raise EngineError(f"{self.name}: a tail without any token")
        tails = [len(tail.encode()) for tail in request.tails]
        prompt = self.count_tokens(request.prompt)
        if prompt + max(tails, default=0) > self.context_length:
            raise EngineError(f"{self.name}: too many tokens")
        if not tails:
            return StateResult(np.zeros((0, LAYERS, self.hidden_size), np.float32), Usage())
        ends = [(tail, end) for tail, ends in zip(request.tails, request.ends, strict=True) for end in ends]
        states = np.stack([self.show(request.prompt, tail[:end]) for tail, end in ends]).astype(np.float32)
        return StateResult(states, Usage(prompt + sum(tails), 0, 0))
