"""A process of ours that ends with whoever started it, however that one ends."""

from __future__ import annotations

import os
import signal
import threading
import time

__all__ = ["end_with_stdin"]


def end_with_stdin(seconds: float) -> None:
    """From now on: SIGTERM when standard input closes, whose other end is held by who started this process; and after
    so many seconds more the end."""
    threading.Thread(target=_wait_and_end, args=[seconds], name="until-stdin-closes", daemon=True).start()


def _wait_and_end(seconds: float) -> None:
    # Not through sys.stdin: Python would abort at its end, waiting for the lock that a read in another thread holds.
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # Its services may have gone with it, and a model that is at work cannot be interrupted.
    time.sleep(seconds)
    os._exit(1)
