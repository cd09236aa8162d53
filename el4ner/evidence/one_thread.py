"""Linear algebra on one thread, beside threads that compute as well.

BLAS shares work between as many threads as there are cores, and each waits for the others in a loop. Where the cores
are busy with models, a matrix of some hundred rows costs ten times the processor time that way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["one_thread"]

_lock = threading.RLock()


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """A block whose linear algebra is computed by the thread that is in it. BLAS knows one limit for the whole process:
    what other threads compute meanwhile has one thread too. From any thread; one at a time, since only the thread that
    has set OpenBLAS's limit can take it away again."""
    with _lock, _blas().limit(limits=1):
        yield
