"""The seam between the method and whatever runs a model.

An engine does two things, both over a batch: *generate* text after a prompt, and *score* candidate continuations. Some
also show the *hidden states* that they read a text with (:class:`StateEngine`).
Drivers: :mod:`el4ner.engines.torch.transformers_engine` (torch), :mod:`el4ner.engines.instant` (no model: answers at
once, for measuring everything around the models). Every driver passes ``tests/support/engine_conformance.py``.

An engine is not thread-safe: exactly one thread, its owner, calls it (:class:`el4ner.engines.owner.OwnedEngine`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from el4ner.types import Usage

__all__ = [
    "LAYERS",
    "Asked",
    "CandidateScore",
    "Engine",
    "GenerateRequest",
    "GenerateResult",
    "Interruptible",
    "Prompt",
    "ScoreItem",
    "ScoreRequest",
    "ScoreResult",
    "StateEngine",
    "StateRequest",
    "StateResult",
    "States",
]


States = npt.NDArray[np.float32]
Asked = tuple[str, tuple[int, ...], bool]
"""A tail, the ends in it whose states are wanted, and whether the middle layer's are enough."""
LAYERS: Final = 2
"""How many states a :class:`StateEngine` gives for a place: from the middle of the model, and from its end."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked, before the model's own chat template (if it has one) is put around it.

    Prompts of one sentence are equal up to and including ``user``, so an engine may keep the key-value cache of
    ``(system, user)`` and use it again for every request that begins with the same two. ``answer`` is the beginning of
    the model's answer. Text is data: control tokens that occur in it are encoded as plain text.

    An engine encodes (template + system + user + template), ``answer``, each ``ScoreItem.tail`` and each candidate
    separately and joins the tokens: the caller cuts where a tokenizer would cut too (a newline before, a space after).
    """

    system: str
    user: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Greedy continuation of ``prompt``, at most ``max_new_tokens``, cut before the first of ``stop``.

    With ``spans_of`` the answer can only be what :mod:`el4ner.engines.constraint` describes: a list of whole-word
    substrings of that text, one a line, or `` none``, and then the end.
    """

    prompt: Prompt
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    spans_of: str | None = None

    def cut(self, text: str) -> str | None:
        """``text`` before the first of ``stop``; None where none of them is in it."""
        places = [at for at in map(text.find, self.stop) if at >= 0]
        return text[: min(places)] if places else None


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """``text`` without prompt, stop string or control tokens; ``finished`` False if ``max_new_tokens`` cut it."""

    text: str
    finished: bool
    usage: Usage


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One question behind a shared prompt: ``prompt + tail`` and the candidates that may follow it."""

    tail: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Questions that share a prompt. Items do not see each other; neither do candidates."""

    prompt: Prompt
    items: tuple[ScoreItem, ...]


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """``logprob``: natural log of the probability of the whole candidate, summed over its ``tokens`` tokens."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """``scores[i][j]`` is candidate j of item i."""

    scores: tuple[tuple[CandidateScore, ...], ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class StateRequest:
    """Tails that share a prompt: what the model makes of ``prompt + tail``, for each tail. Tails do not see each
    other and are not empty.

    ``marks``: for each tail the places whose states are wanted, as ends in code points of that tail: strictly
    ascending, each from 1 to ``len(tail)``. The state of end e is that of the last token that begins before e: it has
    seen the tail up to e, and what else its token holds. An empty tuple for a tail, or no ``marks`` at all: the tail's
    end alone. With marks a whole sentence is read once for the states behind each of its words.

    ``middle_only``: the states of the middle layer alone are wanted. What stands in the last one's place may be
    anything; an engine need not read the tails any further than the middle.

    Raises:
        ValueError: ``marks`` are not as said.
    """

    prompt: Prompt
    tails: tuple[str, ...]
    marks: tuple[tuple[int, ...], ...] = ()
    middle_only: bool = False

    def __post_init__(self) -> None:
        if not self.marks:
            return
        if len(self.marks) != len(self.tails):
            raise ValueError(f"marks of {len(self.marks)} tails for {len(self.tails)} tails: give each tail a tuple")
        for tail, ends in zip(self.tails, self.marks, strict=True):
            if any(right <= left for left, right in pairwise(ends)):
                raise ValueError(f"marks of the tail {tail!r} do not ascend: {ends}")
            if ends and not 0 < ends[0] <= ends[-1] <= len(tail):
                raise ValueError(f"marks of the tail {tail!r} are not within 1 to {len(tail)}: {ends}")

    @property
    def ends(self) -> tuple[tuple[int, ...], ...]:
        """For each tail the ends whose states are wanted: its marks, or its own end."""
        marks = self.marks or ((),) * len(self.tails)
        return tuple(ends or (len(tail),) for tail, ends in zip(self.tails, marks, strict=True))

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Each tail with all that its states depend on, but for the prompt."""
        return tuple((tail, ends, self.middle_only) for tail, ends in zip(self.tails, self.ends, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class StateResult:
    """``states`` ``[places, LAYERS, hidden]``, float32: the hidden states at each end of ``StateRequest.ends``, tail
    after tail. Without marks a tail has one place: behind its last token."""

    states: States
    usage: Usage


@runtime_checkable
class Engine(Protocol):
    """A loaded model. Results are in the order of the requests and do not depend on how requests are batched
    (up to the rounding of the number type)."""

    @property
    def name(self) -> str:
        """The member's name in the ensemble, e.g. ``smollm2-135m``."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the answers may: weights, number type, template. Part of every cache key."""

    @property
    def context_length(self) -> int:
        """The most tokens (prompt and answer together) that the model can read."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of the prompt with its template, to cut demonstrations or sentences before asking."""

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Continue each prompt.

        Raises:
            EngineError: a prompt is longer than ``context_length``, or the model failed.
            EngineOutOfMemoryError: a smaller batch may pass.
        """

    def score(self, requests: Sequence[ScoreRequest]) -> list[ScoreResult]:
        """Log-probabilities of every candidate of every item. Raises as :meth:`generate`."""

    def close(self) -> None:
        """Give memory back. The engine cannot be used afterwards. May be called twice."""


@runtime_checkable
class Interruptible(Protocol):
    """An engine whose calls can be ended from another thread: it writes answers step by step, or waits for a server."""

    def interrupt(self) -> None:
        """End the call that is running, if there is one, soon, and every later one at once, with an
        :class:`~el4ner.errors.EngineAwayError`. For a process that stops; any thread may call it."""


@runtime_checkable
class StateEngine(Engine, Protocol):
    """An engine that also shows its hidden states. Not every one can: a server behind an address does not."""

    @property
    def states_fingerprint(self) -> str:
        """Of weights, tokens and template alone: two engines that share it show the same states but for the rounding of
        their number types and kernels."""

    @property
    def hidden_size(self) -> int:
        """Dimensions of one hidden state."""

    def states(self, requests: Sequence[StateRequest]) -> list[StateResult]:
        """Hidden states behind every tail, or at its marks: from the middle layer and from the last one, after its
        norm.

        Raises as :meth:`Engine.generate`.
        """
