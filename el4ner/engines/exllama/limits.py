"""What ends a call early, how much is tried at a time after memory ran out, and what follows a fault of the library."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch

from el4ner.engines.exllama.backend import Backend
from el4ner.errors import EngineAwayError, EngineError, EngineOutOfMemoryError

__all__ = ["BatchLimit", "CallLimit", "FaultRecovery"]


class CallLimit:
    """Of one call: ends it at its deadline, or when somebody interrupts the engine.

    Args:
        name: the member's, for errors.
        seconds: that the call may take.
        interrupted: set from another thread.
        clock: seconds.
    """

    def __init__(self, name: str, seconds: float, interrupted: threading.Event, clock: Callable[[], float]) -> None:
        self._name = name
        self._seconds = seconds
        self._interrupted = interrupted
        self._clock = clock
        self._ends = clock() + seconds

    def check(self) -> None:
        """Raises:
        EngineAwayError: the engine was interrupted.
        EngineError: the call takes too long (code ``engine-deadline``).
        """
        if self._interrupted.is_set():
            raise EngineAwayError(f"{self._name}: interrupted, since the process stops")
        if self._clock() >= self._ends:
            raise EngineError(
                f"{self._name}: no answer within {self._seconds:g} seconds (exllama.batch_seconds)",
                code="engine-deadline",
            )


class BatchLimit:
    """How many are worked on at the same time: halved when memory ran out, and widened again after a while.

    Args:
        most: at the beginning, and ever.
        patience: calls that have to pass before twice as many are tried.
    """

    def __init__(self, most: int, patience: int = 64) -> None:
        self.most = most
        self.now = most
        self._patience = patience
        self._passed = 0

    def halve(self) -> bool:
        """False if there is no less to try."""
        self._passed = 0
        if self.now == 1:
            return False
        self.now //= 2
        return True

    def passed(self) -> None:
        """A call passed with the room that there is now."""
        self._passed += 1
        if self.now < self.most and self._passed >= self._patience:
            self.now = min(self.most, 2 * self.now)
            self._passed = 0


class FaultRecovery:
    """Of one call: the backend is started anew after a fault, so that the call can try again; after another one it
    cannot. Where memory runs out, less is tried at a time instead, as often as there is less to try.

    Args:
        name: the member's, for errors.
        batch_limit: how many are tried at a time.
        unit: what is counted by it: ``row``, ``answer``.
        log: of the module whose call it is.
    """

    def __init__(self, name: str, backend: Backend, batch_limit: BatchLimit, unit: str, log: logging.Logger) -> None:
        self._name = name
        self._backend = backend
        self._batch_limit = batch_limit
        self._unit = unit
        self._log = log
        self._failed = False

    def recover(self, error: Exception) -> None:
        """Called where ``error`` is handled.

        Raises:
            EngineError: the library failed twice.
            EngineOutOfMemoryError: there is no less to try.
        """
        self._backend.restart()
        if isinstance(error, torch.OutOfMemoryError):
            if not self._batch_limit.halve():
                raise EngineOutOfMemoryError(f"{self._name}: out of memory with one {self._unit}: {error}") from error
            now = {f"{self._unit}s": self._batch_limit.now}
            self._log.warning("engine-memory", extra={"engine": self._name, **now})
            return
        if self._failed:
            raise EngineError(f"{self._name}: the model failed: {error}") from error
        self._failed = True
        self._log.warning("engine-restarted", extra={"engine": self._name, "error": str(error)})
