"""Running a batch so that one poison document costs only itself. On the engine's thread; no Kafka.

An :class:`~el4ner.errors.EngineError` means that a document of the batch is poison, that the batch is too large, or
that the engine is ill. A ``transient`` error may pass by itself: the call is made again after a while. Otherwise the
batch is halved, down to single documents (1 + 2·log₂ n calls for one poison document among n). A document that fails
alone gets the error. Anything else that is raised is a bug and is not caught.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from el4ner.errors import DocumentError, EngineError
from workers.backoff import Backoff

__all__ = ["Isolation", "Result"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """What became of one item: a result, or the error that this item alone causes. ``attempts``: calls that it was
    in."""

    value: R | DocumentError
    attempts: int = 1


@dataclass(frozen=True)
class Isolation:
    """How a batch is run.

    Args:
        retries: how often a call is made again after ``transient`` errors, before it counts as failed.
        backoff: how long to wait before each of them.
        sleep: seconds → waits; returns early, with True, if the worker is to stop.
        on_error: called with every engine error, and how many documents the call had.
    """

    retries: int
    backoff: Backoff
    sleep: Callable[[float], bool]
    on_error: Callable[[EngineError, int], None] = lambda _error, _documents: None

    def run(self, call: Callable[[Sequence[T]], list[R | DocumentError]], items: Sequence[T]) -> list[Result[R]]:
        """Results in the order of the items.

        Raises:
            EngineError: a transient error that did not pass; no item is to blame for it.
        """
        if not items:
            return []
        return self._run(call, items, 0)

    def _run(
        self, call: Callable[[Sequence[T]], list[R | DocumentError]], items: Sequence[T], attempts: int
    ) -> list[Result[R]]:
        tries = 0
        while True:
            tries += 1
            try:
                return [Result(value, attempts + tries) for value in _checked(call, items)]
            except EngineError as error:
                self.on_error(error, len(items))
                if error.transient:
                    if tries > self.retries or self.sleep(self.backoff.seconds(tries)):
                        raise
                    continue
                if len(items) == 1:
                    return [Result(_given_up(error), attempts + tries)]
                half = len(items) // 2
                so_far = attempts + tries
                return self._run(call, items[:half], so_far) + self._run(call, items[half:], so_far)


def _checked(call: Callable[[Sequence[T]], list[R | DocumentError]], items: Sequence[T]) -> list[R | DocumentError]:
    values = call(items)
    if len(values) != len(items):
        raise RuntimeError(f"a stage answered {len(values)} results to {len(items)} documents")
    return values


def _given_up(error: EngineError) -> DocumentError:
    given_up = DocumentError(f"an engine fails on this document alone: {error}", code=error.code)
    given_up.__cause__ = error
    return given_up
