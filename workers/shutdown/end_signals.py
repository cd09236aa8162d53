"""SIGTERM and SIGINT, heard also while the event loop stands still.

``loop.add_signal_handler`` calls back on the loop, which a blocked loop never does, and a handler in Python waits for
the main thread, which may be inside a native call. The signal's number, however, is written to a socket by the
interpreter's C code, whatever thread runs; a thread of ours reads it there.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["EndSignals"]

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class EndSignals:
    """A context manager for the main thread: inside, ``heard(number)`` is called for each signal, on another thread."""

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._heard = heard

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="end-signals", daemon=True)
        self._thread.start()
        self._descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _nothing) for number in _NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            # None: it was set by C code, and cannot be set from here.
            if handler is not None:
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self._writer.close()
        self._thread.join(timeout=1.0)
        self._reader.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while numbers := self._reader.recv(64):
                for number in numbers:
                    if number in _NUMBERS:
                        self._heard(number)


def _nothing(_number: int, _frame: Any) -> None:
    """Python writes a signal's number only where it has a handler."""
