"""Which pool is read next: those that are needed, in the order of need, before those that are read ahead. No thread of
its own, and no lock: whoever asks it from several threads has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future

__all__ = ["NeededPools"]


class NeededPools:
    """A pool that cannot be read for now is put off: others have their turn before it.

    Args:
        unread: names of the pools that have yet to be read.
        ahead: of these, those that are read where none is needed, in their order.
        clock: seconds.
    """

    def __init__(self, unread: Collection[str], ahead: Sequence[str], *, clock: Callable[[], float]) -> None:
        self.unread: set[str] = set(unread)
        self._ahead = [name for name in ahead if name in self.unread]
        self._clock = clock
        self._needed: dict[str, Future[None]] = {}
        self._put_off: dict[str, float] = {}
        self._tries: Counter[str] = Counter()

    def __contains__(self, name: str | None) -> bool:
        """Whether somebody needs it."""
        return name in self._needed

    def need(self, name: str) -> Future[None]:
        """The future of whoever needs it; it has a result if the pool is read."""
        future = self._needed.get(name)
        if future is None:
            future = Future()
            if name in self.unread:
                self._needed[name] = future
            else:
                future.set_result(None)
        return future

    def due(self, *, besides: str | None = None) -> str | None:
        """The next one that is needed and not put off."""
        now = self._clock()
        due = (name for name in self._needed if name != besides and self._put_off.get(name, now) <= now)
        return next(due, None)

    def next(self) -> str | None:
        """The one that is to be read now. None: there is nothing to do, for :meth:`seconds`."""
        return self.due() or next((name for name in self._ahead if name not in self._needed), None)

    def seconds(self) -> float | None:
        """Until one is due of those that are put off; None: none is."""
        until = [self._put_off[name] for name in self._needed if name in self._put_off]
        return max(0.0, min(until) - self._clock()) if until else None

    def pass_by(self, name: str, seconds: float) -> None:
        """It is put off, and those that are needed now come before it."""
        self._needed[name] = self._needed.pop(name)
        self._put_off[name] = self._clock() + seconds

    def failed(self, name: str) -> int:
        """How often it could not be read."""
        self._tries[name] += 1
        return self._tries[name]

    def read(self, name: str) -> Future[None] | None:
        """It is read. Returns what :meth:`settle` returns."""
        self.unread.discard(name)
        self._put_off.clear()  # what kept another one from being read may be over
        return self.settle(name)

    def settle(self, name: str) -> Future[None] | None:
        """It is needed no more, nor read ahead. Returns the future of whoever waits for it, to be told outside of any
        lock."""
        if name in self._ahead:
            self._ahead.remove(name)
        del self._tries[name]
        future = self._needed.pop(name, None)
        return future if future is not None and future.set_running_or_notify_cancel() else None
