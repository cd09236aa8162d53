"""One thread that owns an engine, so that callers on any thread or event loop can share it.

An engine is not thread-safe and blocks for seconds. Its owner takes calls from a bounded queue, one after another; a
full queue holds callers back, which is how a slow model slows down its sources instead of filling memory.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from el4ner.engines.base import Engine, Interruptible
from el4ner.errors import EngineError

__all__ = ["OwnedEngine"]

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Engine)


@dataclass(slots=True)
class _QueuedCall(Generic[E]):
    future: Future[Any]
    run: Callable[[E], Any]


class OwnedEngine(Generic[E]):
    """Calls run one at a time, in the order in which they were submitted, on a thread of their own.

    An exception goes to the future of the call that raised it; the thread goes on. A future that is cancelled before
    its call begins is never run. As a context manager: :meth:`close` at the end.

    Args:
        engine: an engine, or a function that loads one: it then runs on the owner's thread, before any call; what it
            raises goes to every call.
        capacity: calls that may wait.
        name: of the thread.
    """

    def __init__(self, engine: E | Callable[[], E], *, capacity: int = 16, name: str = "engine") -> None:
        if capacity < 1:
            raise ValueError("capacity has to be at least 1")
        self._capacity = capacity
        self._calls: deque[_QueuedCall[E]] = deque()
        self._submitted = 0
        self._changed = threading.Condition()
        self._closing = False
        self._engine: E | None = None
        self._thread = threading.Thread(target=self._work, args=(engine,), name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> OwnedEngine[E]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(cancel=kind is not None)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn: a gauge for metrics."""
        return len(self._calls)

    @property
    def submitted(self) -> int:
        """Calls that were ever submitted: who sees it stay the same knows that nobody asks."""
        return self._submitted

    def submit(self, function: Callable[Concatenate[E, P], R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run ``function(engine, *args, **kwargs)`` on the owner's thread; wait for a place if the queue is full.

        ``owner.submit(Engine.score, requests).result()`` on a thread. On an event loop, which must not wait:
        ``await asyncio.wrap_future(owner.submit_within(0, Engine.score, requests))``.

        Raises:
            EngineError: the owner is closed.
        """
        return self.submit_within(None, function, *args, **kwargs)

    def submit_within(
        self, seconds: float | None, function: Callable[Concatenate[E, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """:meth:`submit`, waiting at most ``seconds`` for a place (None: as long as it takes).

        Raises:
            queue.Full: there was no place in time.
            EngineError: the owner is closed.
        """
        future: Future[R] = Future()
        with self._changed:
            free = self._changed.wait_for(lambda: self._closing or len(self._calls) < self._capacity, seconds)
            if self._closing:
                raise EngineError("the engine's owner is closed")
            if not free:
                raise queue.Full
            self._calls.append(_QueuedCall(future, lambda engine: function(engine, *args, **kwargs)))
            self._submitted += 1
            self._changed.notify_all()
        return future

    def close(self, *, cancel: bool = False) -> None:
        """Take no more calls, answer those that wait (or cancel them), close the engine, and wait for the thread.

        May be called twice. The call that is running is finished, but for one thing: with ``cancel`` an engine that can
        be interrupted (:class:`~el4ner.engines.base.Interruptible`) is, and the call ends with its error.
        """
        dropped: list[_QueuedCall[E]] = []
        with self._changed:
            self._closing = True
            if cancel:
                dropped = list(self._calls)
                self._calls.clear()
            self._changed.notify_all()
        engine: object = self._engine
        if cancel and isinstance(engine, Interruptible):
            engine.interrupt()
        for call in dropped:  # outside the lock: a future's callbacks run in here
            call.future.cancel()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _next(self) -> _QueuedCall[E] | None:
        """The next call; None when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._closing)
            if not self._calls:
                return None
            call = self._calls.popleft()
            self._changed.notify_all()
            return call

    def _work(self, engine_or_loader: E | Callable[[], E]) -> None:
        engine: E | None = None
        failure: BaseException | None = None
        try:
            engine = engine_or_loader if isinstance(engine_or_loader, Engine) else engine_or_loader()
            self._engine = engine
        except BaseException as error:  # it is the callers' to handle
            failure = error
        while (call := self._next()) is not None:
            if not call.future.set_running_or_notify_cancel():
                continue
            if engine is None:
                call.future.set_exception(failure)
                continue
            try:
                result = call.run(engine)
            except BaseException as error:  # it is the caller's to handle
                call.future.set_exception(error)
            else:
                call.future.set_result(result)
            del call  # or the last call's arguments live until the next one
        if engine is not None:
            self._engine = None
            engine.close()
