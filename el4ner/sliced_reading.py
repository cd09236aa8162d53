"""Pools are read by one step of an iterator after the other, for a program with one thread that has other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from el4ner.evidence.reading import ReadingStoppedError
from el4ner.pipeline import BasePipeline

__all__ = ["read_in_slices"]

R = TypeVar("R")


def read_in_slices(pipeline: BasePipeline, pools: Sequence[str]) -> Generator[str, None, None]:
    """Read those of ``pools`` that are not read, in this order: each step reads a slice of one, and gives its name.
    After the last step of a pool, and before the first one of the next, no pool is being read.

    Models are asked on the thread that takes the steps, and nowhere else. Between two steps it may do with the pipeline
    what it likes, but for documents of the pool that is being read. Whoever takes no further step, and closes the
    iterator, finds what was read when the pool is read again.

    Raises:
        PoolReadingError: a pool cannot be read.
    """
    for name in pools:
        if name in pipeline.unread_pools:
            reading = _PoolSteps(pipeline, name)
            yield from reading.steps()


class _PoolSteps:
    """Of one pool: a thread goes through it, and has every call of a model made by who takes the steps."""

    def __init__(self, pipeline: BasePipeline, name: str) -> None:
        self._pipeline = pipeline
        self._name = name
        self._stopped = False
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()

    def steps(self) -> Iterator[str]:
        pipeline, name, call = self._pipeline, self._name, self._call
        read = yield from self._beside(partial(pipeline.read_beside, name, call, self._elsewhere))
        while not pipeline.use_read(name, read):
            read = yield from self._beside(partial(pipeline.teach_beside, name, read, call))
        yield name

    def _beside(self, function: Callable[[], R]) -> Any:
        """``function()``, on a thread of its own; a step for each of its calls."""
        result: Future[R] = Future()

        def run() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                result.set_result(function())
            except BaseException as error:  # it is raised where the steps are taken
                result.set_exception(error)
            self._calls.put(None)

        call: tuple[Callable[[], Any], Future[Any]] | None = None
        try:
            threading.Thread(target=run, name="pool", daemon=True).start()
            while (call := self._calls.get()) is not None:
                _make(*call)
                yield self._name
        except BaseException:  # no further step is taken, or whoever takes them is interrupted
            self._stopped = True
            result.cancel()  # if the thread has not begun: an interruption may come while it is started
            while not result.done():
                if call is not None and not call[1].done():
                    call[1].set_exception(ReadingStoppedError())
                call = self._calls.get()
            raise
        return result.result()

    def _call(self, function: Callable[[], R], /) -> R:
        self._elsewhere()
        answer: Future[R] = Future()
        self._calls.put((function, answer))
        return answer.result()

    def _elsewhere(self, _kept: float = 0.0) -> None:
        """Another process reads the pool.

        Raises:
            ReadingStoppedError: nobody takes the steps any more.
        """
        if self._stopped:
            raise ReadingStoppedError


def _make(function: Callable[[], R], answer: Future[R]) -> None:
    """An interruption is raised here, and is none of the reader's."""
    try:
        result = function()
    except Exception as error:  # it is the reader's to handle
        answer.set_exception(error)
    else:
        answer.set_result(result)
