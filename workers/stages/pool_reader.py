"""Pools that have yet to be read are read beside the documents of the others, by a thread that has the models' thread
read them slice by slice.

    needed, in their order ──────────▶ being read ──a slice──▶ models' thread ──▶ ready
    configured, while nobody asks ──────┘  ▲                    (between two batches)
                                           └──────────────────────┘

What is read ahead gives way between two slices: to a pool that is needed, and to documents for as long as any come.
Meanwhile nobody is at work on it, so that another process may be. A pool that documents wait for gets half of the
models' time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from el4ner.errors import El4nerError
from el4ner.evidence.reading import ReadingStoppedError
from workers.backoff import Backoff
from workers.stages.engine_calls import Owner
from workers.stages.needed_pools import NeededPools
from workers.telemetry.start_progress import StartProgress

__all__ = ["PoolReader", "ReadingOwner"]

log = logging.getLogger(__name__)

R = TypeVar("R")

QUIET_SECONDS: Final = 2.0
"""So long nobody has asked the models before something is read ahead: then at most one document waits for a slice."""
ELSEWHERE_SECONDS: Final = 5.0
"""So long a pool that another process reads waits for its turn, where another one is needed too."""
HANDOVER_SECONDS: Final = 0.1
"""So long the models' thread waits for the next slice of a pool that has had less than its half."""
_POLL_SECONDS: Final = 0.2


class ReadingOwner(Owner, Protocol):
    """:class:`el4ner.engines.owner.OwnedEngine`."""

    @property
    def submitted(self) -> int:
        """Calls that were ever submitted."""


class _ReaderCall:
    """One for the models' thread: a slice, mostly."""

    __slots__ = ("asked", "function", "future")

    def __init__(self, function: Callable[[Any], Any], asked: float) -> None:
        self.function = function
        self.asked = asked
        self.future: Future[Any] = Future()

    def submitted(self, turn: Future[None]) -> None:
        """Whoever waits for it hears that its turn will not come."""
        if turn.cancelled():
            self.future.cancel()


class PoolReader:
    """Reads the pools of one pipeline. :meth:`need` and what is asked about it may be called from any thread.

    Args:
        owner: of the pipeline, which is loaded.
        pipeline: has ``unread_pools``, ``parts_of_reading``, ``read_beside``, ``teach_beside`` and ``use_read`` of
            :class:`el4ner.pipeline.BasePipeline`.
        ahead: names of the pools that are read while nobody asks for anything, in their order.
        retries: how often a pool that is needed is tried again before whoever needs it hears that it cannot be read;
            None: for as long as it takes. Other pools are read between the tries.
        backoff: between two tries.
        progress: what the pipeline tells how far it is.
        quiet_seconds, elsewhere_seconds, handover_seconds: :data:`QUIET_SECONDS`, :data:`ELSEWHERE_SECONDS`,
            :data:`HANDOVER_SECONDS`.
        clock: seconds.
    """

    def __init__(
        self,
        owner: ReadingOwner,
        pipeline: Any,
        *,
        ahead: Sequence[str] = (),
        retries: int | None = 0,
        backoff: Backoff | None = None,
        progress: StartProgress | None = None,
        quiet_seconds: float = QUIET_SECONDS,
        elsewhere_seconds: float = ELSEWHERE_SECONDS,
        handover_seconds: float = HANDOVER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._owner = owner
        self._pipeline = pipeline
        self._needed = NeededPools(pipeline.unread_pools, ahead, clock=clock)
        self._retries = retries
        self._backoff = backoff or Backoff(0.0, 0.0)
        self._progress = progress
        self._begun_before = 0
        self._quiet_seconds = quiet_seconds
        self._elsewhere_seconds = elsewhere_seconds
        self._handover_seconds = handover_seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._kept = 0.0
        self._told_elsewhere: set[str] = set()
        self._stopping = False
        self._reading: str | None = None
        self._slice_began: float | None = None
        self._moved = clock()
        self._own_calls = 0
        self._others_calls = 0
        self._waited = self._worked = 0.0
        self._following: _ReaderCall | None = None
        self._turn_is_open = False
        self.retried: Callable[[str], None] = lambda _code: None
        """Called with the code of an error after which a pool is tried again."""
        self._thread = threading.Thread(target=self._run, name="pools", daemon=True)

    def start(self) -> None:
        """Begin. Whatever is needed before waits."""
        if self._needed.unread:
            self._thread.start()

    def stop(self) -> None:
        """Read no further slice. Whoever waits for a pool waits in vain. Before the owner is closed."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the thread, when it was stopped and its owner is closed."""
        if self._thread.is_alive():
            self._thread.join(timeout=seconds)

    # --- what others ask ----------------------------------------------------------------------------------------

    @property
    def unread(self) -> Collection[str]:
        """The pools that have yet to be read: once a pool is not among them, it is ready for good."""
        return self._needed.unread

    @property
    def reading(self) -> str | None:
        """The pool that is being read."""
        return self._reading

    @property
    def ratios(self) -> Mapping[str, float]:
        """How much of the pool that is being read has been, 0 to 1, by its name."""
        name, progress = self._reading, self._progress
        if name is None or progress is None:
            return {}
        begun = progress.started - self._begun_before
        share = (begun - 1 + progress.share) / max(1, self._pipeline.parts_of_reading) if begun > 0 else 0.0
        return {name: min(1.0, share)}

    @property
    def slice_seconds(self) -> float | None:
        """For how long the models have read the current slice; None: they do something else, or nothing."""
        began = self._slice_began
        return None if began is None else self._clock() - began

    @property
    def idle_seconds(self) -> float:
        """How long ago the last slice, or sign of life of whoever else reads the pool, was."""
        return self._clock() - self._moved

    def need(self, name: str) -> Future[None]:
        """A document of the pool ``name``, which is unread, has come. The future ends when the pool is ready, or with
        what keeps it from being read: then it is tried again when it is needed again."""
        with self._changed:
            future = self._needed.need(name)
            self._changed.notify_all()
        return future

    # --- on the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (name := self._next()) is not None:
            self._begun_before = 0 if self._progress is None else self._progress.started
            self._reading, self._waited, self._worked = name, 0.0, 0.0
            began = self._clock()
            try:
                self._wait_until_quiet()
                self._read(name)
            except ReadingStoppedError:
                continue
            except Exception as error:
                self._failed(name, error)
                continue
            finally:
                self._reading = None
            log.info("the pool is read", extra={"pool": name, "seconds": round(self._clock() - began, 2)})
            with self._changed:
                future = self._needed.read(name)
            if future is not None:
                future.set_result(None)

    def _next(self) -> str | None:
        with self._changed:
            while not self._stopping:
                if (name := self._needed.next()) is not None:
                    return name
                if not self._needed.unread:
                    break
                self._changed.wait(self._needed.seconds())
        return None

    def _read(self, name: str) -> None:
        read = self._pipeline.read_beside(name, self._call, self._elsewhere)
        while not self._on_owner(partial(_used, name=name, read=read)):
            read = self._pipeline.teach_beside(name, read, self._call)

    def _failed(self, name: str, error: Exception) -> None:
        known, future = isinstance(error, El4nerError), None
        with self._changed:  # who needs it later has it tried again
            if self._stopping:
                return
            tries = self._needed.failed(name)
            again = known and name in self._needed and (self._retries is None or tries <= self._retries)
            if again:
                self._needed.pass_by(name, self._backoff.seconds(tries))
            else:
                future = self._needed.settle(name)
        log.warning("%s", error, extra={"pool": name, "again": again}, exc_info=None if known else error)
        if again:
            self.retried(getattr(error, "code", "pool-reading"))
        if future is not None:
            future.set_exception(error)

    # --- the models' thread -------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """
        Raises:
            ReadingStoppedError: the process ends, or another pool is needed and this one is not.
        """
        with self._changed:
            if self._stopping or (self._reading not in self._needed and self._needed.due() is not None):
                raise ReadingStoppedError

    def _elsewhere(self, kept: float) -> None:
        """Another process reads the pool. It may hang: that we wait for it is no sign of life.

        Raises:
            ReadingStoppedError: as :meth:`_go_on`; or another pool is needed too, and its turn comes first.
        """
        name = self._reading
        if name is None:
            return
        if name not in self._told_elsewhere:
            self._told_elsewhere.add(name)
            log.info("another process reads the pool", extra={"pool": name})
        if kept != self._kept:
            self._kept, self._moved = kept, self._clock()
        self._go_on()
        with self._changed:
            if name in self._needed and self._needed.due(besides=name) is not None:
                self._needed.pass_by(name, self._elsewhere_seconds)
                raise ReadingStoppedError

    def _call(self, function: Callable[[], R], /) -> R:
        self._go_on()
        if self._reading not in self._needed and self._owner.submitted - self._own_calls != self._others_calls:
            raise ReadingStoppedError  # and again when it is quiet: until then another process may read the pool
        return self._on_owner(lambda _: function())

    def _wait_until_quiet(self) -> None:
        """Where the pool is read ahead."""
        since = self._clock()
        with self._changed:
            while self._reading not in self._needed:
                self._go_on()
                if (calls := self._owner.submitted - self._own_calls) != self._others_calls:
                    self._others_calls, since = calls, self._clock()
                if self._owner.waiting == 0 and self._clock() - since >= self._quiet_seconds:
                    return
                self._changed.wait(_POLL_SECONDS)

    def _on_owner(self, function: Callable[[Any], R]) -> R:
        call = _ReaderCall(function, self._clock())
        with self._changed:
            has_turn, self._following = self._turn_is_open, call
            self._changed.notify_all()
        if not has_turn:
            self._own_calls += 1
            self._owner.submit_within(None, self._take_turn).add_done_callback(call.submitted)
        try:
            answer: R = call.future.result()
        except CancelledError:
            raise ReadingStoppedError from None
        return answer

    def _take_turn(self, pipeline: Any) -> None:
        """On the models' thread: a call, and those that follow it, until documents have waited as long as the pool."""
        call = self._submitted_call()
        while call is not None:
            self._slice_began = began = self._clock()
            error: BaseException | None = None
            answer = None
            try:
                answer = call.function(pipeline)
            except BaseException as raised:  # it is the reader's to handle
                error = raised
            self._slice_began, self._moved = None, self._clock()
            self._waited += began - call.asked
            self._worked += self._moved - began
            if error is None:
                call.future.set_result(answer)
            else:
                call.future.set_exception(error)
            call = self._owed_call()

    def _submitted_call(self) -> _ReaderCall | None:
        """None: it was made in the turn before, before which it was asked for."""
        with self._changed:
            call, self._following = self._following, None
        return call

    def _owed_call(self) -> _ReaderCall | None:
        """The next one, if the pool has had less than its half. None: it is the documents' turn."""
        with self._changed:
            if self._reading not in self._needed or self._waited <= self._worked:
                return None
            self._turn_is_open = True
            self._changed.wait_for(lambda: self._stopping or self._following is not None, self._handover_seconds)
            self._turn_is_open = False
        return self._submitted_call()


def _used(pipeline: Any, *, name: str, read: Any) -> bool:
    return bool(pipeline.use_read(name, read))
