"""Seconds that a device spends on each kind of work, measured without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

__all__ = ["Stopwatch"]

_PENDING: Final = 1024
"""Measurements that are kept before the finished ones among them are added up."""


class Stopwatch:
    """On a GPU events are put between what is launched; they are read when somebody asks, which waits for the last one.
    Elsewhere it is the host's time.

    Args:
        phases: names of what is measured.
        device: of the work.
    """

    def __init__(self, phases: Sequence[str], device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(phases, 0.0)
        self._pending: deque[tuple[str, Any, Any]] = deque()

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """What is launched inside belongs to ``phase``. What raises is not counted."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            yield
            self._seconds[phase] += time.perf_counter() - started
            return
        # Of the device where the work is, which need not be the thread's current one; the stream may change meanwhile.
        begin, end = _event(), _event()
        begin.record(torch.cuda.current_stream(self._device))
        yield
        end.record(torch.cuda.current_stream(self._device))
        self._pending.append((phase, begin, end))
        if len(self._pending) > _PENDING:
            self._add_up(wait=False)

    def seconds(self) -> dict[str, float]:
        """By phase, since it was made."""
        self._add_up(wait=True)
        return dict(self._seconds)

    def _add_up(self, *, wait: bool) -> None:
        while self._pending and (wait or self._pending[0][2].query()):
            phase, begin, end = self._pending.popleft()
            end.synchronize()
            self._seconds[phase] += begin.elapsed_time(end) / 1000


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
