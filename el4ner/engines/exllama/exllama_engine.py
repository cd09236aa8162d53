"""The engine for quantised models on a GPU: the method's requests on ExLlamaV2 or ExLlamaV3.

Answers are written by continuous batching: all requests of a call are queued, and the next one begins as soon as one is
finished. Candidates and tails are read as rows behind the prompt that they share, of all prompts of a call that the
cache holds at once. Prompts stay in the cache's pages until they are needed, so that the next stage finds them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from typing_extensions import override

from el4ner.engines.base import (
    GenerateRequest,
    GenerateResult,
    Interruptible,
    ScoreRequest,
    ScoreResult,
    StateEngine,
    StateRequest,
    StateResult,
)
from el4ner.engines.constraint import TokenMask
from el4ner.engines.exllama.backend import Backend
from el4ner.engines.exllama.causal import check_causal
from el4ner.engines.exllama.limits import BatchLimit, CallLimit
from el4ner.engines.exllama.shared_prefix import AskedRow, SharedPrefixRows, read_rows
from el4ner.engines.exllama.state_rows import StateRows
from el4ner.engines.exllama.tree_paths import paths_of
from el4ner.engines.exllama.writing import JobAnswer, write
from el4ner.engines.token_engine import PromptQuestions, TokenEngine
from el4ner.types import Usage

__all__ = ["ExllamaEngine"]

DRIVER: Final = 1
"""Part of every fingerprint: counted up when this driver may answer differently."""


class ExllamaEngine(TokenEngine, StateEngine, Interruptible):
    """Make one with :func:`el4ner.engines.exllama.loading.load`.

    Args:
        name: the member's name.
        backend: the loaded model; the engine closes it.
        tokenizer: of transformers, for the same model.
        fingerprint: of weights and tokenizer.
        batch_seconds: that a call may take.
        end_tokens: that end an answer, besides those that the tokenizer shows.
        cache_bits: of the backend's cache.
        clock: seconds.
    """

    _READS = "model and cache hold"

    def __init__(
        self,
        name: str,
        backend: Backend,
        tokenizer: Any,
        *,
        fingerprint: str,
        batch_seconds: float,
        end_tokens: frozenset[int] = frozenset(),
        cache_bits: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            name,
            tokenizer,
            identity=(DRIVER, fingerprint, backend.identity),
            context_length=backend.context_length,
            end_tokens=end_tokens,
            model=fingerprint,
        )
        self._backend = backend
        self._batch_seconds = batch_seconds
        self._cache_bits = cache_bits
        self._clock = clock
        self._interrupted = threading.Event()
        self._jobs = BatchLimit(backend.max_jobs)
        self._rows = BatchLimit(backend.max_rows)
        self._hidden_size = backend.hidden_size
        self._number = 0

    @property
    @override
    def hidden_size(self) -> int:
        return self._hidden_size

    @property
    def model_seconds(self) -> float:
        """Seconds spent inside the model since it was loaded."""
        return sum(self.timings().values())

    @property
    def forward_tokens(self) -> int:
        """Tokens that the model has read since it was loaded, padding included."""
        return self._ready().tokens

    def timings(self) -> dict[str, float]:
        """Seconds since it was loaded: ``prefill`` of prompts, ``decode`` of answers, ``rows`` of scores and states."""
        return dict(self._ready().seconds)

    def forget_prompts(self) -> None:
        """Drop the prompts read before: what follows is read anew."""
        self._ready().forget()

    @override
    def interrupt(self) -> None:
        self._interrupted.set()

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            backend = self._backend
            del self._backend
            backend.close()

    def check(self) -> None:
        """The causal self-check (:mod:`.causal`). The cache's prompts are forgotten.

        Raises:
            ModelError: the model must not serve.
        """
        check_causal(self._name, self._ready(), self._renderer.encode, self._cache_bits)

    @override
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        backend = self._ready()
        prompts = self._prefixes(requests)
        answers: list[JobAnswer | None] = []
        for prompt, request in zip(prompts, requests, strict=True):
            self._number += 1
            answer = JobAnswer(self._number, request, prompt, self._end_tokens, self._mask(request))
            answers.append(answer if request.max_new_tokens > 0 else None)
        write(
            self._name,
            [answer for answer in answers if answer is not None],
            backend,
            self._renderer.decode,
            self._call_limit(),
            self._jobs,
        )
        return [GenerateResult("", False, Usage()) if answer is None else answer.result() for answer in answers]

    @override
    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Requests with the same prompt share its reading.

        ``usage.prompt_tokens`` counts prompts and the tokens of tails and candidates that were read behind them (what
        they share: once); the second request with the same prompt finds it in the cache.
        """
        backend = self._ready()
        shared: dict[tuple[int, ...], SharedPrefixRows[list[float]]] = {}
        jobs = [
            _ScoredRows(PromptQuestions(prefix, questions), shared)
            for prefix, questions in self._questions_by_prompt(requests).items()
        ]
        read_rows(self._name, list(shared.values()), backend, backend.score, self._call_limit(), self._rows)
        results = dict(result for job in jobs for result in job.results())
        return [results[index] for index in range(len(requests))]

    @override
    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        backend = self._ready()
        rows = StateRows(self._tails(request) for request in requests)
        read_rows(self._name, rows.asked, backend, backend.states, self._call_limit(), self._rows)
        return rows.results(self._hidden_size)

    def _mask(self, request: GenerateRequest) -> Callable[[], TokenMask] | None:
        if request.spans_of is None:
            return None
        return partial(self._token_masks(self._ready().vocabulary).mask, request.spans_of, request.stop)

    def _call_limit(self) -> CallLimit:
        return CallLimit(self._name, self._batch_seconds, self._interrupted, self._clock)

    def _ready(self) -> Backend:
        self._check_open()
        return self._backend


class _ScoredRows:
    """The questions behind one prompt, as rows behind what they share with others."""

    def __init__(
        self, questions: PromptQuestions, shared: dict[tuple[int, ...], SharedPrefixRows[list[float]]]
    ) -> None:
        self._questions = questions
        self._rows: list[tuple[SharedPrefixRows[list[float]], int, tuple[tuple[int, int], ...]]] = []
        for path in paths_of(questions.prompt, questions.trees[0], questions.targets(0)):
            behind = shared.setdefault(path.prefix, SharedPrefixRows(path.prefix))
            asked = tuple((place, token) for place, (_, token) in zip(path.places, path.targets, strict=True))
            self._rows.append((behind, len(behind.rows), path.targets))
            behind.rows.append(AskedRow(path.tokens, asked))

    def results(self) -> Iterator[tuple[int, ScoreResult]]:
        """(index of the request, its result)."""
        cached = len(self._questions.prompt)
        for behind, number, targets in self._rows:
            for target, logprob in zip(targets, behind.results[number], strict=True):
                self._questions.logprobs[0, *target] = logprob
            cached = min(cached, behind.cached_tokens)
        return self._questions.results(cached)
