"""Ends the process when its end takes too long, whatever a library waits for.

A worker that has decided to end depends on many that have to let it: Kafka's clients, the event loop's other tasks,
threads that the interpreter joins at its exit. Any of them may wait for ever, and meanwhile the process looks alive.
So a thread outside the event loop waits beside it, and ends the process when the time is up: with the exit status that
it would have had, after one line in the log that says where every thread and task stood.

Three may end it, each for the case that the one before cannot:

1. the thread, by ``os._exit``;
2. :mod:`faulthandler`'s watchdog, 3 s later and with status 1: it needs no Python, so it works where a native call
   holds the interpreter's lock, and writes where the threads stood;
3. the kernel, by SIGALRM, a second after that: also where the interpreter is gone, and a native library's exit handler
   hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import Any, Final

from workers.shutdown.stack_report import task_positions, thread_positions

__all__ = ["Watchdog"]

log = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 1.0
_WRITE_SECONDS: Final = 0.5
_NATIVE_SECONDS: Final = 3.0
"""More than the thread takes at worst, from its time-out to its exit."""
_KERNEL_SECONDS: Final = 1.0
_STANDARD_ERROR: Final = 2


def _last_resorts(seconds: float | None) -> None:
    """Have the process ended in so many seconds though no Python can run; None: do not."""
    if seconds is None:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STANDARD_ERROR)
    signal.setitimer(signal.ITIMER_REAL, seconds + _KERNEL_SECONDS)


class Watchdog:
    """Ends its process. Only a program that owns its process has one; it stays armed until the interpreter is gone.

    Args:
        end: ends the process with a status, at once.
        last_resorts: takes the seconds after which the process is to be ended without Python, or None for never.
        monotonic: seconds.
    """

    def __init__(
        self,
        *,
        end: Callable[[int], Any] = os._exit,
        last_resorts: Callable[[float | None], None] = _last_resorts,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._end = end
        self._last_resorts = last_resorts
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None
        self._armed_at = 0.0
        self._status = 1
        self._reason = ""
        self.loops: list[asyncio.AbstractEventLoop] = []
        """Whose tasks are told of."""
        self.before_end: Callable[[], Iterable[Future[None]]] | None = None
        """Called when the time is up; what it begins gets a second."""

    def arm(self, seconds: float, *, status: int, reason: str) -> None:
        """End the process in ``seconds``, or earlier if that was said before, with ``status``. From any thread."""
        with self._changed:
            now = self._monotonic()
            if self._deadline is None:
                self._armed_at = now
            if self._deadline is None or now + seconds < self._deadline:
                self._deadline = now + seconds
                self._last_resorts(seconds + _NATIVE_SECONDS)
            self._status, self._reason = status, reason
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def settle(self, status: int) -> None:
        """What is left to do changes nothing any more: if it hangs, this is the exit status."""
        with self._changed:
            self._status = status

    def disarm(self) -> None:
        """The process goes on after all: it is somebody else's."""
        with self._changed:
            if self._deadline is not None:
                self._deadline = None
                self._last_resorts(None)
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _watch(self) -> None:
        with self._changed:
            while self._deadline is not None and (left := self._deadline - self._monotonic()) > 0:
                self._changed.wait(left)
            if self._deadline is None:
                return
            status, reason, seconds = self._status, self._reason, self._monotonic() - self._armed_at
        # Where they stood when the time was up, not when they have left their groups.
        fields = self._fields(status, reason, seconds)
        try:
            _within(_LEAVE_SECONDS, self._leave)
            event = f"the process has not ended {seconds:.1f} s after it had to ({reason}): it is ended"
            # A handler's lock may be held by a thread that hangs, and what reads our log may have stopped reading.
            if not _within(_LOG_SECONDS, lambda: _log(event, fields)):
                _within(_WRITE_SECONDS, lambda: _write(event, fields))
        finally:
            self._end(status)

    def _leave(self) -> None:
        if self.before_end is not None:
            wait(list(self.before_end()), timeout=_LEAVE_SECONDS)

    def _fields(self, status: int, reason: str, seconds: float) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "code": "ended-by-watchdog",
            "exit_status": status,
            "reason": reason,
            "seconds": round(seconds, 1),
        }
        for name, positions in (("threads", thread_positions), ("tasks", lambda: task_positions(self.loops))):
            try:
                fields[name] = positions()
            except Exception as error:  # whatever it is, the process has to end
                fields[name] = [f"cannot be told: {error!r}"]
        return fields


def _within(seconds: float, function: Callable[[], None]) -> bool:
    """Whether ``function()`` came back in time; it runs on a thread of its own, which is left behind otherwise."""

    def call() -> None:
        with contextlib.suppress(Exception):
            function()

    thread = threading.Thread(target=call, name="watchdog-helper", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads
        return False
    thread.join(seconds)
    return not thread.is_alive()


def _log(event: str, fields: dict[str, Any]) -> None:
    log.critical("%s", event, extra=fields)
    for handler in logging.getLogger().handlers:
        handler.flush()


def _write(event: str, fields: dict[str, Any]) -> None:
    line = json.dumps({"event": event, "level": "critical", "logger": __name__, **fields}, ensure_ascii=False)
    os.write(_STANDARD_ERROR, line.encode(errors="backslashreplace") + b"\n")
