"""Doing things no faster than a rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["at_rate"]

T = TypeVar("T")


def at_rate(
    things: Iterable[T],
    per_second: float | None,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[T]:
    """The things, no faster than ``per_second``; None: as they come."""
    due = monotonic()
    for thing in things:
        yield thing
        if per_second is not None:
            # Measured from when it was due: a slow one is not made up for by a burst of more than one.
            due = max(due + 1 / per_second, monotonic())
            sleep(max(0.0, due - monotonic()))
