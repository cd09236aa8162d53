"""How a pool is read by the members: at once, beside other work, or not at all; in slices in any case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from el4ner.engines.base import StateEngine
from el4ner.engines.wrapped import Call, RelayedEngine
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = [
    "AT_ONCE",
    "NOT_AT_ALL",
    "Meanwhile",
    "PoolReading",
    "ReadingStoppedError",
    "UnreadPoolError",
    "at_once",
    "slices",
]

_MOST_SENTENCES: Final = 16
_MOST_TOKENS: Final = 16_000
"""Of one slice, by the bound of a token for each byte: 16 sentences of news with their proposals have some 10,000."""
R = TypeVar("R")
Meanwhile = Callable[[float], None]
"""Called every second while another process reads a pool, with when anything was kept last: whoever sees the same time
for long knows that this process does not get on."""


class UnreadPoolError(Exception):
    """A pool would have to be read, and is not to be; or another process is reading it."""


class ReadingStoppedError(Exception):
    """Raised by what makes the calls, or is called meanwhile: the pool is not to be read on, for now. What was read is
    kept."""


def at_once(function: Callable[[], R], /) -> R:
    """Calls it here and now."""
    return function()


@dataclass(frozen=True, slots=True)
class PoolReading:
    """What is prepared or kept is found in any case.

    Args:
        progress: is told how far it is.
        by: makes of a member the one that reads the pool. What is compared later asks the member itself.
        waiting: called once where another process reads the pool, before that is waited for.
        meanwhile: called every second while that is waited for. What it raises ends the waiting.
        call: calls what asks a member about one slice of the pool: on the thread that owns the members, say.
    """

    progress: Progress = NO_PROGRESS
    by: Callable[[StateEngine], StateEngine] = lambda engine: engine
    waiting: Callable[[], None] | None = None
    meanwhile: Callable[[], None] = lambda: None
    call: Call = at_once


def _refuse(*_: object) -> NoReturn:
    raise UnreadPoolError


AT_ONCE = PoolReading()
NOT_AT_ALL = PoolReading(by=lambda engine: RelayedEngine(engine, _refuse), waiting=_refuse)
"""Raises :class:`UnreadPoolError` where something would have to be read."""


def slices(texts: Sequence[str], sizes: Sequence[int]) -> Iterator[list[int]]:
    """The places of a pool's sentences, slice by slice: those of similar length together, so that passes are filled
    evenly.

    A slice is asked in one call, and kept when it is answered: other work waits for it, and an interruption loses it.

    Args:
        texts: the sentences.
        sizes: the most tokens that have to be read for each of them.
    """
    batch: list[int] = []
    size = 0
    for place in sorted(range(len(texts)), key=lambda place: len(texts[place])):
        if batch and (len(batch) == _MOST_SENTENCES or size + sizes[place] > _MOST_TOKENS):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += sizes[place]
    if batch:
        yield batch
