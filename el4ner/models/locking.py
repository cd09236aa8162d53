"""One process at a time makes what others then find made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

__all__ = ["exclusive"]

_BETWEEN_SECONDS: Final = 1.0


@contextmanager
def exclusive(
    path: Path, waiting: Callable[[], None] | None = None, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock file ``path`` (made where it is not there); the system lets go of it when its holder dies.

    ``waiting`` is called once if another process, or thread, holds it; ``meanwhile`` every second until it does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is not None:
            waiting()
        while not lock.is_locked:
            meanwhile()
            with suppress(Timeout):
                lock.acquire(timeout=_BETWEEN_SECONDS)
    try:
        yield
    finally:
        lock.release()
