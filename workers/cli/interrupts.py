"""Ctrl-C for what should end in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

__all__ = ["StoppableIteration", "interrupt_flag"]

T = TypeVar("T")


@contextmanager
def interrupt_flag(wanted: bool = True) -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only makes the flag true, so that what was begun is finished and counted."""
    stopped = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if wanted:
        signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)


class StoppableIteration(Generic[T]):
    """Things that are waited for, such as lines of a pipe, until Ctrl-C or SIGTERM; in a ``with`` block.

    The first signal ends the iteration: at once where the next thing is waited for, else when it would be. What is done
    with a thing that was handed out is never interrupted, so that it can be counted. A second signal does what it does
    everywhere.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came; None: none has."""
        self._waiting = False
        self._before: dict[int, Any] = {}

    def until_stopped(self, things: Iterable[T]) -> Iterator[T]:
        """The things, until a signal comes."""
        each = iter(things)
        while not self._stopped():
            try:
                self._waiting = True
                # A signal may have come just before.
                if self._stopped():
                    return
                thing = next(each)
                self._waiting = False
            except StopIteration:
                return
            except KeyboardInterrupt:
                if not self._stopped():
                    raise
                return
            finally:
                self._waiting = False
            yield thing

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Inside, a signal waits, also where the next thing is waited for."""
        waiting, self._waiting = self._waiting, False
        try:
            yield
        finally:
            self._waiting = waiting
        if waiting and self._stopped():
            raise KeyboardInterrupt

    @property
    def exit_status(self) -> int | None:
        """128 and the signal's number, as shells have it; None: no signal came."""
        return None if self.number is None else 128 + self.number

    def _stopped(self) -> bool:
        return self.number is not None

    def _stop(self, number: int, _frame: Any) -> None:
        self.number = number
        self._restore()
        if self._waiting:
            self._waiting = False
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
