"""Which of torch's attention kernels may run while this package's models do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

__all__ = ["without_cudnn"]


class _Inside:
    """Passes that are under way, in whatever thread, and what to go back to behind the last one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.passes = 0
        self.before = True


_INSIDE: Final = _Inside()


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Inside, cuDNN does not attend. torch prefers it on some cards, and it builds a plan for every new shape, for tens
    or hundreds of milliseconds; here nearly every pass has shapes of its own.

    The switch is the process's, not the thread's: members run in threads of their own, so it stays off until the last
    of them is through, and is then as it was before the first. (``torch.nn.attention.sdpa_kernel`` would have one
    thread switch on what another has switched off.)
    """
    with _INSIDE.lock:
        if not _INSIDE.passes:
            _INSIDE.before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
            torch.backends.cuda.enable_cudnn_sdp(False)
        _INSIDE.passes += 1
    try:
        yield
    finally:
        with _INSIDE.lock:
            _INSIDE.passes -= 1
            if not _INSIDE.passes:
                torch.backends.cuda.enable_cudnn_sdp(_INSIDE.before)
