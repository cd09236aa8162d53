"""What a kind of server is asked, and how it answers: the seam that each of them has a driver for.

No network here: bodies are made and answers are read, both plain JSON. Prompts are lists of token numbers wherever a
server takes them, so that a control token's name in a text stays text. All decoding is greedy; penalties and cut-offs
that a server may have as a default are turned off.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from el4ner.engines.base import GenerateRequest

__all__ = ["Body", "Dialect", "Facts", "Get", "Written"]

Body = dict[str, Any]
Get = Callable[[str], Any]
"""The JSON under a path of one server, or None."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself.

    ``identity``: of the weights, as far as it tells; servers of one member have the same. ``version``: of the server's
    software. ``slots``: the most requests that it works on at a time, each with a prompt cache of its own; None: it
    shares one cache among all.
    """

    model: str
    context_length: int
    identity: str
    version: str
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """An answer: its tokens, or its text where a server tells no tokens. ``ended``: not cut at ``max_new_tokens``."""

    tokens: tuple[int, ...] | None
    text: str
    ended: bool
    cached_tokens: int
    new_tokens: int


class Dialect(abc.ABC):
    """One kind of server. Reading an answer of another form raises whatever Python raises (KeyError, TypeError, ...):
    the engine makes it an error of the server."""

    name: ClassVar[str]
    scores: ClassVar[bool] = True
    """It can be asked how likely certain next tokens are."""
    takes_tokens: ClassVar[bool] = True
    """Prompts are token numbers, not text."""
    path: ClassVar[str]
    """Where answers and probabilities are asked for."""

    @abc.abstractmethod
    def facts(self, get: Get, model: str | None) -> Facts | None:
        """What one server is; None if it is of another kind, or has no such model."""

    @abc.abstractmethod
    def tokenize(self, text: str, model: str) -> tuple[str, Body, Callable[[Any], list[int]]]:
        """How to ask for the tokens of plain text: path, body, and how to read them."""

    @abc.abstractmethod
    def generate(
        self, prompt: Sequence[int] | str, request: GenerateRequest, ends: Collection[int], model: str
    ) -> Body:
        """The body for an answer that ends with one of the tokens ``ends``, or sooner."""

    @abc.abstractmethod
    def written(self, answer: Any) -> Written:
        """The answer."""

    def next_tokens(self, prompt: Sequence[int], wanted: Collection[int], model: str) -> Body:
        """The body for: how likely are these next tokens?"""
        raise NotImplementedError

    def forced(self, prompt: Sequence[int], token: int, model: str) -> Body:
        """The body for: how likely is this one? :meth:`likelihoods` tells it for sure."""
        raise NotImplementedError

    def likelihoods(self, answer: Any, wanted: Collection[int]) -> tuple[dict[int, float], int]:
        """Natural-log probabilities of those of them that the answer tells; prompt tokens found in a cache."""
        raise NotImplementedError


def last_part(path: str) -> str:
    """Of a file's or a model's name: the same weights lie in other folders on other machines."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", ".", "~")) else path


def cached_tokens(usage: Mapping[str, Any]) -> int:
    """As OpenAI's API tells them; 0 where it does not."""
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
