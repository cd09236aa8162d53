"""That a process of workers ends, why, and by when: what the workers, the probes and the watchdog have to agree on.

A process ends for one of three reasons: it is asked to (what was begun is finished first), a worker has crashed (it has
given up: nothing is worth waiting for), or it could not start. From then on it has a bound;
:mod:`workers.shutdown.watchdog` holds it to that where the process is ours.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

from workers.exit_status import EXIT_INTERRUPTED
from workers.shutdown.watchdog import Watchdog

__all__ = ["CLOSE_SECONDS", "MARGIN_SECONDS", "Ending"]

CLOSE_SECONDS: Final = 3.0
"""For each thing that is closed when what was begun is finished, or given up: the apps, the spans, the engines."""
MARGIN_SECONDS: Final = 10.0
"""For all of them, and for the interpreter's own end. Platforms give 45 s (docs/operations.md): with the 30 of
``worker.shutdown_seconds`` and the 4 that the watchdog's last resorts add, the process is gone before they kill it."""
_AGAIN_SECONDS: Final = 3.0


class Ending:
    """Safe to call from any thread: a worker may crash, and a signal come, while the event loop stands still.

    Args:
        shutdown_seconds: ``worker.shutdown_seconds``.
        watchdog: None: the process is somebody else's, and is left alone.
        status_of: the exit status that the program ends with after an error; 1 if nothing is said.
        monotonic: seconds.
    """

    def __init__(
        self,
        shutdown_seconds: float,
        *,
        watchdog: Watchdog | None = None,
        status_of: Callable[[BaseException], int] = lambda _: 1,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shutdown_seconds = shutdown_seconds
        self.close_seconds = min(CLOSE_SECONDS, shutdown_seconds)
        self._watchdog = watchdog
        self._status_of = status_of
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._crash: BaseException | None = None
        self._stop_at: float | None = None
        self._interrupts = 0
        self._leavers: Sequence[Callable[[], Future[None]]] = ()
        if watchdog is not None:
            watchdog.before_end = self.leave_groups

    @property
    def crashed_by(self) -> BaseException | None:
        """What a worker has given up over."""
        return self._crash

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """The watchdog tells where the tasks of this loop stood."""
        if self._watchdog is not None and loop not in self._watchdog.loops:
            self._watchdog.loops.append(loop)

    def members(self, leavers: Sequence[Callable[[], Future[None]]]) -> None:
        """How the workers leave their groups: each begins it, and gives what is done when it has."""
        with self._lock:
            self._leavers = tuple(leavers)
            crashed = self._crash is not None
        if crashed:
            self.leave_groups()

    def leave_groups(self) -> list[Future[None]]:
        """Have every worker leave its group, now, and send no heartbeats any more."""
        return [leave() for leave in self._leavers]

    def signal(self, number: int) -> None:
        """SIGTERM or SIGINT came. A second SIGINT is somebody at a terminal who does not want to wait; a second SIGTERM
        is a supervisor's that repeats itself."""
        with self._lock:
            self._interrupts += number == signal.SIGINT
            again = number == signal.SIGINT and self._interrupts > 1
        if again and self._watchdog is not None:
            self._watchdog.arm(_AGAIN_SECONDS, status=EXIT_INTERRUPTED, reason="a second SIGINT")
        else:
            self.stop(signal.Signals(number).name)

    def stop(self, reason: str = "asked to stop") -> None:
        """What was begun is finished. Until :meth:`finished`, a process that hangs has failed at that: status 1."""
        with self._lock:
            if self._stop_at is not None or self._crash is not None:
                return
            self._stop_at = self._monotonic() + self.shutdown_seconds
        if self._watchdog is not None:
            self._watchdog.arm(self.shutdown_seconds + MARGIN_SECONDS, status=1, reason=reason)

    def finished(self) -> None:
        """All that was begun is finished and committed; what is left is to close things."""
        with self._lock:
            if self._crash is not None or self._interrupts > 1:
                return
        if self._watchdog is not None:
            self._watchdog.settle(0)

    def crash(self, error: BaseException) -> None:
        """A worker cannot go on, or not start: all leave their groups at once, before anything else that may hang."""
        with self._lock:
            if self._crash is not None:
                return
            self._crash = error
        self._give_up(error)
        self.leave_groups()

    def fail(self, error: BaseException) -> None:
        """The program ends with an error, and there are no workers (any more)."""
        if self._crash is None:
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if self._watchdog is not None:
            self._watchdog.arm(
                self.close_seconds + MARGIN_SECONDS,
                status=self._status_of(error),
                reason=f"{type(error).__name__}: {error}"[:500],
            )

    def problem(self) -> str | None:
        """Why the process is not worth keeping, for probes: it has given up, or its time to stop is over."""
        if self._crash is not None:
            return f"it has given up, and ends: {type(self._crash).__name__}: {self._crash}"[:500]
        if self._stop_at is not None and (late := self._monotonic() - self._stop_at) > 0:
            return (
                f"it was to stop {self.shutdown_seconds + late:.0f} s ago and has not"
                f" (worker.shutdown_seconds is {self.shutdown_seconds:g})"
            )
        return None
