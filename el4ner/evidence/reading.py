"""How a pool is read by the members: at once, beside other work, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from el4ner.engines.base import StateEngine
from el4ner.engines.wrapped import RelayedEngine
from el4ner.models.progress import NO_PROGRESS, Progress

__all__ = ["AT_ONCE", "NOT_AT_ALL", "PoolReading", "UnreadPoolError"]


class UnreadPoolError(Exception):
    """A pool would have to be read, and is not to be; or another process is reading it."""


@dataclass(frozen=True, slots=True)
class PoolReading:
    """What is prepared or kept is found in any case.

    Args:
        progress: is told how far it is.
        by: makes of a member the one that reads the pool. What is compared later asks the member itself.
        waiting: called once where another process reads the pool, before that is waited for.
        meanwhile: called every second while that is waited for.
    """

    progress: Progress = NO_PROGRESS
    by: Callable[[StateEngine], StateEngine] = lambda engine: engine
    waiting: Callable[[], None] | None = None
    meanwhile: Callable[[], None] = lambda: None


def _refuse(*_: object) -> NoReturn:
    raise UnreadPoolError


AT_ONCE = PoolReading()
NOT_AT_ALL = PoolReading(by=lambda engine: RelayedEngine(engine, _refuse), waiting=_refuse)
"""Raises :class:`UnreadPoolError` where something would have to be read."""
