"""Ends temporary services when the process that asked for them is gone.

``python -m workers.local.service_guard PID ROOT`` is started by
:func:`workers.local.services.temporary_services` with a pipe as its input. The pipe's end says that the other side has
ended, however it did; its process id is watched as well, since a process forked from it (by multiprocessing, for
example) keeps the pipe open.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from workers.local.services import down

__all__ = ["main"]

_LOOK_EVERY_S = 0.5


def main(arguments: list[str]) -> int:
    """Wait until the parent process is gone, then stop what runs under the folder."""
    parent, root = int(arguments[0]), Path(arguments[1])
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_EVERY_S)
        if readable and not sys.stdin.buffer.read(1):
            break
    down(root)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
