"""An engine without a model: it answers at once, and knows nothing.

It exists to measure and test everything *around* the models: what the stages, the workers and the broker cost by
themselves, and whether they are right, without weights and without waiting. Its answers have the right form, depend on
nothing but the question, and mean nothing: tags made with it are noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Final

from typing_extensions import override

from el4ner.engines.base import (
    CandidateScore,
    Engine,
    GenerateRequest,
    GenerateResult,
    Prompt,
    ScoreRequest,
    ScoreResult,
)
from el4ner.engines.constraint import SpanLines
from el4ner.errors import EngineError
from el4ner.types import Usage

__all__ = ["InstantEngine"]

CONTEXT: Final = 1 << 20
CHARACTERS_PER_TOKEN: Final = 3


class InstantEngine(Engine):
    """See :class:`el4ner.engines.base.Engine`.

    A "token" is three characters, rounded up. ``score`` gives every candidate of an item a share of the probability 1
    (together at most that), drawn from a hash of prompt, tail and candidate. ``generate`` answers with what ``reply``
    makes of the prompt (by default nothing), cut at stop strings and ``max_new_tokens`` like any answer, and before
    that, where spans of a text are asked for, as soon as it lists none.

    Args:
        name: the member's name; part of the hash, so that two members disagree.
        reply: what to answer to a prompt.
    """

    def __init__(self, name: str, *, reply: Callable[[Prompt], str] | None = None) -> None:
        self._name = name
        self._reply = reply
        self._closed = False

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def fingerprint(self) -> str:
        return hashlib.sha256(f"instant\0{self._name}".encode()).hexdigest()

    @property
    @override
    def context_length(self) -> int:
        return CONTEXT

    @override
    def count_tokens(self, prompt: Prompt) -> int:
        return _tokens(prompt.system) + _tokens(prompt.user) + _tokens(prompt.answer)

    @override
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        self._ready()
        return [self._generate(request) for request in requests]

    @override
    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        self._ready()
        return [self._score(request) for request in requests]

    @override
    def close(self) -> None:
        self._closed = True

    def _generate(self, request: GenerateRequest) -> GenerateResult:
        read = self.count_tokens(request.prompt)
        self._check_length(read + request.max_new_tokens)
        text = self._reply(request.prompt) if self._reply is not None else ""
        if request.spans_of is not None and text:
            text = SpanLines(request.spans_of).nearest(text)
        finished = request.max_new_tokens > 0
        if _tokens(text) > request.max_new_tokens:
            text = text[: request.max_new_tokens * CHARACTERS_PER_TOKEN]
            finished = False
        if (cut := request.cut(text)) is not None:
            text, finished = cut, True
        return GenerateResult(text, finished, Usage(read, 0, _tokens(text)))

    def _score(self, request: ScoreRequest) -> ScoreResult:
        prompt = request.prompt
        read = length = self.count_tokens(prompt)
        begun = _hashed(f"{self._name}\0{prompt.system}\0{prompt.user}\0{prompt.answer}\0")
        # Most items of a request have the same candidates.
        known: dict[tuple[str, ...], list[tuple[bytes, int]]] = {}
        scores = []
        for item in request.items:
            candidates = known.get(item.candidates)
            if candidates is None:
                candidates = known[item.candidates] = [(_bytes(text), _tokens(text)) for text in item.candidates]
            tail = _tokens(item.tail)
            self._check_length(length + tail + max((tokens for _, tokens in candidates), default=0))
            read += tail
            asked = begun.copy()
            asked.update(_bytes(f"{item.tail}\0"))
            scores.append(_answer(asked, candidates))
        return ScoreResult(tuple(scores), Usage(read, 0, 0))

    def _ready(self) -> None:
        if self._closed:
            raise EngineError(f"{self._name}: the engine is closed")

    def _check_length(self, tokens: int) -> None:
        if tokens > CONTEXT:
            raise EngineError(f"{self._name}: prompt and answer take {tokens} tokens, the model reads {CONTEXT}")


def _answer(asked: hashlib._Hash, candidates: Sequence[tuple[bytes, int]]) -> tuple[CandidateScore, ...]:
    """``asked``: a hash of the question. ``candidates``: their bytes, and how many tokens they have."""
    # A candidate's share depends on its text alone, so that neither order nor company changes it: half of the
    # probability at most, halved again for every further candidate that there may be.
    scores = []
    for candidate, tokens in candidates:
        if not candidate:
            scores.append(CandidateScore(0.0, 0))
            continue
        digest = asked.copy()
        digest.update(candidate)
        share = (int.from_bytes(digest.digest()[:6], "big") + 1) / (1 << 48)
        scores.append(CandidateScore(math.log(share) - math.log(len(candidates)), tokens))
    return tuple(scores)


def _hashed(text: str) -> hashlib._Hash:
    return hashlib.sha256(_bytes(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)
