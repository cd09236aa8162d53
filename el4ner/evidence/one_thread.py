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

_lock = threading.Lock()
_inside = 0
_limit: Any = None


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """A block whose linear algebra is computed by the thread that is in it. BLAS knows one limit for the whole process:
    what other threads compute meanwhile has one thread too. From any thread, also from several."""
    global _inside, _limit
    with _lock:
        _inside += 1
        if _inside == 1:
            _limit = _blas().limit(limits=1)
            _limit.__enter__()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limit.__exit__(None, None, None)
