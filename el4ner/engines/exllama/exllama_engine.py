"""The engine for quantised models on a GPU: the method's requests on ExLlamaV2 or ExLlamaV3.

Answers are written by continuous batching: all requests of a call are queued, and the next one begins as soon as one is
finished. Candidates and tails are read as rows behind the prompt that they share, of all prompts of a call that the
cache holds at once. Prompts stay in the cache's pages until they are needed, so that the next stage finds them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

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
from el4ner.engines.constraint import TokenMask, TokenMasks
from el4ner.engines.exllama.backend import Backend
from el4ner.engines.exllama.causal import check_causal
from el4ner.engines.exllama.limits import BatchLimit, CallLimit
from el4ner.engines.exllama.pages import PAGE
from el4ner.engines.exllama.shared_prefix import SharedPrefixRows, read_rows
from el4ner.engines.exllama.tree_paths import paths_of
from el4ner.engines.exllama.writing import JobAnswer, write
from el4ner.engines.packing import Planted, Question, TokenTree, plant
from el4ner.engines.rendering import Renderer
from el4ner.engines.vocabulary import Vocabulary
from el4ner.errors import EngineError
from el4ner.types import Usage

__all__ = ["ExllamaEngine"]

DRIVER: Final = 1
"""Part of every fingerprint: counted up when this driver may answer differently."""
_ALL_NODES: Final = 1 << 30
_LONGEST_ROW: Final = PAGE - 1


class ExllamaEngine:
    """See :class:`el4ner.engines.base.StateEngine`. Make one with :func:`el4ner.engines.exllama.loading.load`.

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
        self._name = name
        self._backend: Backend | None = backend
        self._renderer = Renderer(tokenizer)
        self._tokenizer = tokenizer
        self._masks: TokenMasks | None = None
        self._end_tokens = self._renderer.end_tokens | end_tokens
        self._batch_seconds = batch_seconds
        self._cache_bits = cache_bits
        self._clock = clock
        self._interrupted = threading.Event()
        self._jobs = BatchLimit(backend.max_jobs)
        self._rows = BatchLimit(backend.max_rows)
        self._context_length = backend.context_length
        self._hidden_size = backend.hidden_size
        self._number = 0
        told = f"{DRIVER}\0{fingerprint}\0{backend.identity}\0{self._renderer.template}"
        self._fingerprint = hashlib.sha256(told.encode()).hexdigest()

    @property
    def name(self) -> str:
        """See :class:`~el4ner.engines.base.Engine`."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """See :class:`~el4ner.engines.base.Engine`."""
        return self._fingerprint

    @property
    def context_length(self) -> int:
        """See :class:`~el4ner.engines.base.Engine`. Of what the model reads and what its cache holds, the less."""
        return self._context_length

    @property
    def hidden_size(self) -> int:
        """See :class:`~el4ner.engines.base.StateEngine`."""
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

    def count_tokens(self, prompt: Prompt) -> int:
        """See :class:`~el4ner.engines.base.Engine`."""
        return len(self._renderer.prefix(prompt))

    def interrupt(self) -> None:
        """See :class:`~el4ner.engines.base.Interruptible`."""
        self._interrupted.set()

    def close(self) -> None:
        """See :class:`~el4ner.engines.base.Engine`."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def check(self) -> None:
        """The causal self-check (:mod:`.causal`). The cache's prompts are forgotten.

        Raises:
            ModelError: the model must not serve.
        """
        check_causal(self._name, self._ready(), self._renderer.encode, self._cache_bits)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """See :class:`~el4ner.engines.base.Engine`."""
        backend = self._ready()
        prompts = [self._prefix(request.prompt) for request in requests]
        for prompt, request in zip(prompts, requests, strict=True):
            self._check_length(len(prompt) + max(0, request.max_new_tokens))
        answers: list[JobAnswer | None] = []
        for prompt, request in zip(prompts, requests, strict=True):
            self._number += 1
            made = JobAnswer(self._number, request, prompt, self._end_tokens, self._mask(request))
            answers.append(made if request.max_new_tokens > 0 else None)
        write(
            self._name,
            [answer for answer in answers if answer is not None],
            backend,
            self._renderer.decode,
            self._call_limit(),
            self._jobs,
        )
        return [GenerateResult("", False, Usage()) if answer is None else answer.result() for answer in answers]

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """See :class:`~el4ner.engines.base.Engine`. Requests with the same prompt share its reading.

        ``usage.prompt_tokens`` counts prompts and the tokens of tails and candidates that were read behind them (what
        they share: once); the second request with the same prompt finds it in the cache.
        """
        backend = self._ready()
        encode = self._renderer.encode
        asked: dict[tuple[int, ...], dict[int, list[Question]]] = {}
        for index, request in enumerate(requests):
            prefix = self._prefix(request.prompt)
            questions = [Question(encode(item.tail), tuple(map(encode, item.candidates))) for item in request.items]
            self._check_length(len(prefix) + max((question.longest for question in questions), default=0))
            asked.setdefault(prefix, {})[index] = questions
        behind: dict[tuple[int, ...], SharedPrefixRows[list[float]]] = {}
        jobs = [_ScoreJob(prefix, questions, behind) for prefix, questions in asked.items()]
        read_rows(self._name, list(behind.values()), backend, backend.score, self._call_limit(), self._rows)
        results = dict(result for job in jobs for result in job.results())
        return [results[index] for index in range(len(requests))]

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        """See :class:`~el4ner.engines.base.StateEngine`."""
        backend = self._ready()
        behind: dict[tuple[int, ...], SharedPrefixRows[States]] = {}
        places: list[list[tuple[SharedPrefixRows[States], int]]] = []
        usages: list[tuple[int, SharedPrefixRows[States] | None]] = []
        for request in requests:
            prefix = self._prefix(request.prompt)
            tails = [self._renderer.encode(tail) for tail in request.tails]
            if not all(tails):
                raise EngineError(f"{self._name}: a tail without any token")
            self._check_length(len(prefix) + max(map(len, tails), default=0))
            here = []
            for tail in tails:
                cut = max(0, len(tail) - _LONGEST_ROW)  # a longer one begins as part of the prompt
                one = behind.setdefault((*prefix, *tail[:cut]), SharedPrefixRows((*prefix, *tail[:cut])))
                row = (tail[cut:], ())
                here.append((one, one.rows.index(row) if row in one.rows else len(one.rows)))
                if row not in one.rows:
                    one.rows.append(row)
            places.append(here)
            usages.append((len(prefix) + sum(map(len, set(tails))), here[0][0] if here else None))
        read_rows(self._name, list(behind.values()), backend, backend.states, self._call_limit(), self._rows)
        results = []
        for request, here, (tokens, first) in zip(requests, places, usages, strict=True):
            if first is None:
                results.append(StateResult(np.zeros((0, LAYERS, self._hidden_size), dtype=np.float32), Usage()))
                continue
            prefix = self._prefix(request.prompt)
            found = np.stack([one.results[number] for one, number in here])
            results.append(StateResult(found, Usage(tokens, min(first.cached_tokens, len(prefix)), 0)))
        return results

    def _mask(self, request: GenerateRequest) -> Callable[[], TokenMask] | None:
        text = request.spans_of
        if text is None:
            return None
        if self._masks is None:
            size = self._ready().vocabulary
            self._masks = TokenMasks(Vocabulary(self._tokenizer, size), self._end_tokens)
        masks = self._masks
        return lambda: masks.mask(text, request.stop)

    def _call_limit(self) -> CallLimit:
        return CallLimit(self._name, self._batch_seconds, self._interrupted, self._clock)

    def _prefix(self, prompt: Prompt) -> tuple[int, ...]:
        prefix = self._renderer.prefix(prompt)
        if not prefix:
            raise EngineError(f"{self._name}: an empty prompt")
        return prefix

    def _ready(self) -> Backend:
        if self._backend is None:
            raise EngineError(f"{self._name}: the engine is closed")
        return self._backend

    def _check_length(self, tokens: int) -> None:
        if tokens > self._context_length:
            raise EngineError(
                f"{self._name}: prompt and answer take {tokens} tokens, model and cache hold {self._context_length}"
            )


class _ScoreJob:
    """All questions behind one prompt, whoever asked them: one tree, cut into rows."""

    def __init__(
        self,
        prefix: tuple[int, ...],
        questions: dict[int, list[Question]],
        behind: dict[tuple[int, ...], SharedPrefixRows[list[float]]],
    ) -> None:
        self._prefix = prefix
        self._questions = questions
        together = [question for asked in questions.values() for question in asked]
        trees, self._planted = plant(together, _ALL_NODES)
        tree: TokenTree = trees[0]
        self._asks = any(question.candidates for question in together)
        self._nodes = len(tree)
        targets = {target for planted in self._planted for candidate in planted.targets for target in candidate}
        self._rows: list[tuple[SharedPrefixRows[list[float]], int, tuple[tuple[int, int], ...]]] = []
        for path in paths_of(prefix, tree, sorted(targets)):
            one = behind.setdefault(path.prefix, SharedPrefixRows(path.prefix))
            asked = tuple((place, token) for place, (_, token) in zip(path.places, path.targets, strict=True))
            self._rows.append((one, len(one.rows), path.targets))
            one.rows.append((path.tokens, asked))

    def results(self) -> list[tuple[int, ScoreResult]]:
        """(index of the request, its result)."""
        found: dict[tuple[int, int], float] = {}
        cached = len(self._prefix)
        for one, number, targets in self._rows:
            found.update(zip(targets, one.results[number], strict=True))
            cached = min(cached, one.cached_tokens)
        planted = iter(self._planted)
        results = []
        nodes = self._nodes
        for index, questions in self._questions.items():
            scores = tuple(_scores(next(planted), found) for _ in questions)
            usage = Usage(len(self._prefix) + nodes, cached, 0) if self._asks else Usage()
            results.append((index, ScoreResult(scores, usage)))
            cached, nodes = len(self._prefix), 0
        return results


def _scores(planted: Planted, found: dict[tuple[int, int], float]) -> tuple[CandidateScore, ...]:
    return tuple(
        CandidateScore(sum((found[target] for target in targets), 0.0), len(targets)) for targets in planted.targets
    )
