"""What the driver asks of a library that runs models with a paged key-value cache.

Everything is in tokens: text, templates, batching, limits and mistakes are the driver's (:mod:`.engine`). A backend has
one model, one cache of pages that running answers and prompts read before share, and is called by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from el4ner.engines.base import States
from el4ner.engines.constraint import TokenMask

__all__ = ["Backend", "DecodeJob", "HeldPrompt", "JobProgress", "SuffixRow"]


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """An answer to write: greedily, of tokens that ``mask`` allows, until an end token or ``max_new_tokens``."""

    number: int
    tokens: tuple[int, ...]
    max_new_tokens: int
    end_tokens: frozenset[int]
    mask: TokenMask | None = None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What one step brought to a job: further tokens (no end token among them), and whether and why it is finished.

    ``cached_tokens`` of the prompt were found in the cache; known when the job is finished.
    """

    number: int
    tokens: tuple[int, ...]
    finished: Literal["end", "length"] | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class HeldPrompt:
    """A prompt whose pages stay until it is released. ``cached_tokens`` of it did not have to be read."""

    tokens: tuple[int, ...]
    cached_tokens: int
    handle: Any


@dataclass(frozen=True, slots=True)
class SuffixRow:
    """Tokens that are read behind a held prompt, and what is asked of them. Place 0 is the prompt's last token, place
    ``i`` is ``tokens[i - 1]``.

    ``targets``: (place, token): how likely the token is behind that place, for :meth:`Backend.score`.
    ``places``: those whose hidden states are wanted, for :meth:`Backend.states`.
    """

    held: HeldPrompt
    tokens: tuple[int, ...]
    targets: tuple[tuple[int, int], ...] = ()
    places: tuple[int, ...] = ()


class Backend(Protocol):
    """A loaded model. What it raises is an ``el4ner`` error or, if the library failed, whatever the library raised;
    running out of memory is :class:`torch.OutOfMemoryError`."""

    context_length: int
    """The most tokens that prompt and answer may take: of what the model reads and what the cache holds, the less."""
    cache_tokens: int
    """What the cache holds of prompts and answers together."""
    max_rows: int
    """The most rows that :meth:`score` and :meth:`states` read in one pass."""
    max_jobs: int
    """The most answers that are written at the same time."""
    hidden_size: int
    vocabulary: int
    """Tokens that the model knows."""
    identity: str
    """Library, version and settings that answers may depend on: part of the fingerprint."""
    tokens: int
    """Tokens that the model has read since it was loaded."""

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in the model since it was loaded, by phase: ``prefill``, ``decode``, ``rows``."""

    def enqueue(self, job: DecodeJob) -> None:
        """Let a job start as soon as there are pages for it."""

    def step(self) -> list[JobProgress]:
        """Read prompts of jobs that have just started, and write one token of every job that runs."""

    def cancel(self, number: int) -> int:
        """Forget a job, running or waiting; how many of its prompt's tokens were found in the cache."""

    def hold(self, prompts: Sequence[tuple[int, ...]]) -> list[HeldPrompt]:
        """Read prompts, all but the last token of each, and keep them: as many, from the first on, as there are pages
        for. Only while no job runs or waits.

        Raises:
            EngineError: not even the first one fits.
        """

    def release(self, held: Sequence[HeldPrompt]) -> None:
        """Let go of prompts; until their pages are needed they are found again."""

    def fitting(self, rows: Sequence[SuffixRow]) -> int:
        """How many of the first rows :meth:`score` and :meth:`states` can read in one pass.

        Raises:
            EngineError: the first row is too long for any pass.
        """

    def score(self, rows: Sequence[SuffixRow]) -> list[list[float]]:
        """Natural-log probabilities of each row's targets. Rows do not see each other, and all have to fit."""

    def states(self, rows: Sequence[SuffixRow]) -> list[States]:
        """Hidden states of each row's places, ``[places, LAYERS, hidden]``: middle layer, and the end after its norm.
        Rows do not see each other, and all have to fit."""

    def restart(self) -> None:
        """After a fault: forget every job, held prompt and page, and take new work."""

    def forget(self) -> None:
        """Drop the prompts read before: what follows is read anew."""

    def close(self) -> None:
        """Give the memory back."""
