"""Log records of what takes long before a worker is ready: converting weights, reading a pool, and how far that is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from typing_extensions import override

from el4ner.models.progress import Progress

__all__ = ["StartProgress"]

EVERY_SECONDS: Final = 10.0
log = logging.getLogger(__name__)


class StartProgress(Progress):
    """A record when something begins, and about every ten seconds how much of it is done and how long the rest will
    take at that rate.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._label = ""
        self._total = self._finished = 0
        self._began = self._told = 0.0
        self.started = 0
        """How many things have begun so far. From any thread, as :attr:`share`."""

    @property
    def share(self) -> float:
        """How much of what began last is done, 0 to 1."""
        total = self._total
        return min(1.0, self._finished / total) if total else 0.0

    @override
    def start(self, label: str, total: int) -> None:
        self._label, self._total, self._finished = label, total, 0
        self.started += 1
        self._began = self._told = self._clock()
        log.info(label, extra={"total": total})

    @override
    def advance(self, steps: int) -> None:
        self._finished += steps
        now = self._clock()
        if now - self._told < EVERY_SECONDS or not 0 < self._finished < self._total:
            return
        self._told = now
        left = (now - self._began) * (self._total - self._finished) / self._finished
        log.info(self._label, extra={"finished": self._finished, "total": self._total, "seconds_left": round(left)})

    @override
    def done(self) -> None:
        pass
