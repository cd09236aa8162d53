"""Test doubles: engines that record what they were asked and answer from a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from el4ner.engines.base import CandidateScore, GenerateRequest, GenerateResult, Prompt, ScoreRequest, ScoreResult
from el4ner.types import Usage


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
