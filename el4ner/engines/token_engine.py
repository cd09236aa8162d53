"""What all engines do that run prompts as tokens, whatever reads these tokens: a model on torch, or a server.

Prompts are encoded and their lengths checked, questions are put together by prompt, and scores are taken apart again.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from typing_extensions import override

from el4ner.engines.base import (
    CandidateScore,
    Engine,
    GenerateRequest,
    Prompt,
    ScoreRequest,
    ScoreResult,
    StateRequest,
)
from el4ner.engines.constraint import TokenMasks
from el4ner.engines.packing import Planted, Target, TokenQuestion, plant
from el4ner.engines.rendering import Renderer
from el4ner.engines.vocabulary import Vocabulary
from el4ner.errors import EngineError
from el4ner.types import Usage

__all__ = ["MarkedTail", "PromptQuestions", "TokenEngine"]

Tokens = tuple[int, ...]
_SAMPLE: Final = "Zoë Müller, 東京: 3.5 % (10.0.0.1) user_id=x"
"""Its tokens stand for the tokenizer, whose file may be written in many ways."""


class TokenEngine(Engine):
    """A subclass answers requests, and closes what runs the model.

    Args:
        name: the member's name.
        tokenizer: of transformers.
        identity: everything that answers depend on, but for the chat template: for the fingerprint.
        context_length: the most tokens of prompt and answer.
        end_tokens: that end an answer, besides those that the tokenizer shows.
        model: of the weights, whatever computes with them; for engines that show hidden states.
    """

    _READS: ClassVar[str] = "the model reads"
    """Whose limit ``context_length`` is, for errors."""

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        *,
        identity: Sequence[object],
        context_length: int,
        end_tokens: frozenset[int],
        model: str = "",
    ) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self._context_length = context_length
        self._end_tokens = self._renderer.end_tokens | end_tokens
        identified = "\0".join(map(str, (*identity, self._renderer.template)))
        self._fingerprint = hashlib.sha256(identified.encode()).hexdigest()
        read = "\0".join(map(str, (model, self._renderer.template, self._renderer.encode(_SAMPLE))))
        self._states_fingerprint = hashlib.sha256(read.encode()).hexdigest()
        self._masks: TokenMasks | None = None
        self._closed = False

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def states_fingerprint(self) -> str:
        """See :class:`~el4ner.engines.base.StateEngine`; means nothing where ``model`` was not given."""
        return self._states_fingerprint

    @property
    @override
    def context_length(self) -> int:
        return self._context_length

    @override
    def count_tokens(self, prompt: Prompt) -> int:
        return len(self._renderer.prefix(prompt))

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"{self._name}: the engine is closed")

    def _check_length(self, tokens: int) -> None:
        if tokens > self._context_length:
            raise EngineError(
                f"{self._name}: prompt and answer take {tokens} tokens, {self._READS} {self._context_length}"
            )

    def _prefix(self, prompt: Prompt) -> Tokens:
        """The prompt's tokens."""
        prefix = self._renderer.prefix(prompt)
        if not prefix:
            raise EngineError(f"{self._name}: an empty prompt")
        return prefix

    def _prefixes(self, requests: Sequence[GenerateRequest]) -> list[Tokens]:
        """The tokens of every prompt, behind which the longest answer still fits."""
        prefixes = [self._prefix(request.prompt) for request in requests]
        for prefix, request in zip(prefixes, requests, strict=True):
            self._check_length(len(prefix) + max(0, request.max_new_tokens))
        return prefixes

    def _questions(self, request: ScoreRequest) -> tuple[Tokens, list[TokenQuestion]]:
        """The prompt's tokens, and what is asked behind them."""
        encode = self._renderer.encode
        prefix = self._prefix(request.prompt)
        questions = [TokenQuestion(encode(item.tail), tuple(map(encode, item.candidates))) for item in request.items]
        self._check_length(len(prefix) + max((question.longest for question in questions), default=0))
        return prefix, questions

    def _questions_by_prompt(self, requests: Sequence[ScoreRequest]) -> dict[Tokens, dict[int, list[TokenQuestion]]]:
        """What is asked behind each prompt, by the index of the request that asks it."""
        by_prompt: dict[Tokens, dict[int, list[TokenQuestion]]] = {}
        for index, request in enumerate(requests):
            prefix, questions = self._questions(request)
            by_prompt.setdefault(prefix, {})[index] = questions
        return by_prompt

    def _tails(self, request: StateRequest) -> tuple[Tokens, list[MarkedTail]]:
        """The prompt's tokens, and each tail."""
        prefix = self._prefix(request.prompt)
        marks = request.marks or ((),) * len(request.tails)
        tails = [self._tail(tail, ends) for tail, ends in zip(request.tails, marks, strict=True)]
        self._check_length(len(prefix) + max((len(tail.tokens) for tail in tails), default=0))
        return prefix, tails

    def _tail(self, text: str, marks: tuple[int, ...]) -> MarkedTail:
        tokens, starts = self._renderer.encode_with_starts(text) if marks else (self._renderer.encode(text), ())
        if not tokens:
            raise EngineError(f"{self._name}: a tail without any token")
        begun = (len(tokens) if mark == len(text) else bisect_left(starts, mark) for mark in marks or (len(text),))
        return MarkedTail(tokens, tuple(count - 1 for count in begun))

    def _token_masks(self, vocabulary: int) -> TokenMasks:
        """What keeps answers to spans of a text, for a model that knows ``vocabulary`` tokens. Made when it is first
        asked for: a large vocabulary takes a second."""
        if self._masks is None:
            ends = (end for end in self._end_tokens if end < vocabulary)
            self._masks = TokenMasks(Vocabulary(self._tokenizer, vocabulary), ends)
        return self._masks


@dataclass(frozen=True, slots=True)
class MarkedTail:
    """A tail of a :class:`~el4ner.engines.base.StateRequest` in tokens. ``places``: indices of the tokens whose states
    are wanted, ascending; one token may be wanted for several marks."""

    tokens: Tokens
    places: tuple[int, ...]


class PromptQuestions:
    """All questions behind one prompt, whoever asked them: the trees to be read, and then the scores.

    Args:
        prompt: its tokens.
        questions: by the index of the request that asks them.
        max_nodes: of one tree; None: there is one tree.
    """

    def __init__(
        self, prompt: Tokens, questions: Mapping[int, Sequence[TokenQuestion]], max_nodes: int | None = None
    ) -> None:
        self.prompt = prompt
        self._questions = questions
        together = [question for asked in questions.values() for question in asked]
        self.trees, self._planted = plant(together, max_nodes)
        self.asks = any(question.candidates for question in together)
        self.logprobs: dict[tuple[int, int, int], float] = {}
        """By tree, node and token: the engine fills them in."""

    def targets(self, tree: int) -> list[Target]:
        """What has to be read off one tree, ascending."""
        planted = (planted for planted in self._planted if planted.tree == tree)
        return sorted({target for question in planted for candidate in question.targets for target in candidate})

    def results(self, cached_tokens: int) -> Iterator[tuple[int, ScoreResult]]:
        """The result of each request, with its index. ``cached_tokens`` of the prompt did not have to be read; whoever
        asks second finds all of it."""
        planted = iter(self._planted)
        nodes = sum(map(len, self.trees))
        for index, questions in self._questions.items():
            scores = tuple(self._scores(next(planted)) for _ in questions)
            usage = Usage(len(self.prompt) + nodes, cached_tokens, 0) if self.asks else Usage()
            yield index, ScoreResult(scores, usage)
            cached_tokens, nodes = len(self.prompt), 0

    def _scores(self, planted: Planted) -> tuple[CandidateScore, ...]:
        return tuple(
            CandidateScore(sum((self.logprobs[planted.tree, *target] for target in targets), 0.0), len(targets))
            for targets in planted.targets
        )
