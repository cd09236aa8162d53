"""A process's pools as they are taught: a thread follows the topic and has the pipeline go by what it says.

    topic ──▶ examples by pool ──▶ the taught pool ──▶ its evidence ──▶ in use, between two batches
                                                     (models are asked on their owner's thread, call by call)

What is prepared is prepared beside the work on documents; only calls of models, each of a few sentences, and the change
itself take the owner's time. The topic is the truth: nothing is kept of it here, and who starts reads all of it first.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Final, TypeVar

from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from el4ner.pools.taught import TaughtPool, taught_pool
from el4ner.stages.teaching import PoolTeaching
from workers.config import KafkaSettings
from workers.stages.engine_calls import Owner
from workers.teaching.followed_examples import FollowedExamples, followed_examples
from workers.teaching.taught_examples import TaughtExamples
from workers.telemetry.metrics import Metrics
from workers.topics import TopicError

__all__ = ["PoolFollower"]

log = logging.getLogger(__name__)

R = TypeVar("R")

_POLL_MS: Final = 200
_RETRY_SECONDS: Final = 5.0
"""After a broker, or a model, that failed."""


class _ClosedError(Exception):
    """The process ends."""


class PoolFollower:
    """Follows the topic for one pipeline.

    Args:
        settings: of the brokers.
        owner: of the pipeline, which is loaded.
        teaching: the pipeline's.
    """

    def __init__(self, settings: KafkaSettings, owner: Owner, teaching: PoolTeaching) -> None:
        self._settings = settings
        self._owner = owner
        self._teaching = teaching
        self._base = teaching.base
        self._stopping = threading.Event()
        self._caught_up = threading.Event()
        self._failure: BaseException | None = None
        self._examples = TaughtExamples()
        self._in_use: dict[str, TaughtPool] = {name: taught_pool(pool, ()) for name, pool in self._base.items()}
        self._due: set[str] = set()
        self._again_at = 0.0
        self._renewing: threading.Thread | None = None
        self._renewed: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="teaching", daemon=True)

    def start(self) -> None:
        """Read the topic to its end, and have the pipeline go by it. Blocks until that is done.

        Raises:
            El4nerError: the topic cannot be read, or the pools cannot be taught.
        """
        self._thread.start()
        self._caught_up.wait()
        if self._failure is not None:
            raise self._failure

    def close(self, seconds: float) -> None:
        """Stop following, within so many seconds. Before the owner is closed, or after."""
        self._stopping.set()
        self._caught_up.set()
        for thread in (self._thread, self._renewing):
            if thread is not None and thread.is_alive():
                thread.join(timeout=seconds)

    def observe(self, metrics: Metrics) -> None:
        """Have what is taught read when somebody scrapes."""
        metrics.observe("el4ner_pool_examples", self._counts)
        metrics.observe("el4ner_pool_examples_refused", self._refused)

    def _counts(self) -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for name, taught in self._in_use.copy().items():
            counts[name, "used"] = len(taught.examples)
            counts[name, "left_out"] = len(taught.left_out)
        return counts

    def _refused(self) -> dict[tuple[str, ...], float]:
        return {(code,): float(count) for code, count in self._examples.refused.copy().items()}

    # --- on the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with followed_examples(self._settings) as followed:
                    self._follow(followed)
            except (_ClosedError, CancelledError):
                return
            except (KafkaError, TopicError) as error:
                if not self._caught_up.is_set():
                    self._fail(error if isinstance(error, El4nerError) else TopicError(f"reading examples: {error}"))
                    return
                log.warning("examples cannot be read, and are tried again: %s", error)
            except Exception as error:
                if not self._caught_up.is_set():
                    self._fail(error)
                    return
                log.exception("following the examples failed, and is tried again")
            self._stopping.wait(_RETRY_SECONDS)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._caught_up.set()

    def _follow(self, followed: FollowedExamples) -> None:
        """From the beginning of the topic: what is known of it is another one's, if it was made anew."""
        examples, changed = TaughtExamples(), set(self._base)
        while not followed.is_read:
            self._check_stopping()
            changed |= examples.take_in(followed.poll(_POLL_MS))
        self._examples = examples
        self._due |= changed & self._base.keys()
        while True:
            self._check_stopping()
            self._teach()
            self._caught_up.set()
            self._due |= examples.take_in(followed.poll(_POLL_MS)) & self._base.keys()

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise _ClosedError

    def _teach(self) -> None:
        """Bring into use what has changed."""
        self._due |= self._take_renewed()
        if not self._due or time.monotonic() < self._again_at:
            return
        for name in sorted(self._due):
            try:
                self._use(name, taught_pool(self._base[name], self._examples.of(name)))
            except (El4nerError, OSError) as error:
                if not self._caught_up.is_set():
                    raise
                self._check_stopping()
                # The pool serves as it was.
                log.warning("pool %s cannot be taught, and is tried again: %s", name, error, extra={"pool": name})
                self._again_at = time.monotonic() + _RETRY_SECONDS
                continue
            except (_ClosedError, CancelledError):
                raise
            except Exception:
                # A bug, which some example may bring out: whoever wrote that must not stop a fleet.
                log.exception("pool %s cannot be taught, and serves as it was", name, extra={"pool": name})
                self._again_at = time.monotonic() + _RETRY_SECONDS
                continue
            self._due.discard(name)
        self._renew()

    def _use(self, name: str, taught: TaughtPool) -> None:
        before = self._in_use[name]
        began = time.monotonic()
        while True:
            prepared = self._teaching.prepare(name, taught, self._call)
            if self._on_owner(partial(_used, name=name, prepared=prepared)):
                break
        self._in_use[name] = taught
        for left_out in taught.left_out:
            if left_out not in before.left_out:
                log.warning(
                    "an example of pool %s is not used: %s",
                    name,
                    left_out.reason,
                    extra={"pool": name, "digest": left_out.example.digest},
                )
        if taught.pool.fingerprint != before.pool.fingerprint:
            extra = {"pool": name, "fingerprint": taught.pool.fingerprint, "examples": len(taught.examples)}
            log.info("the pool is taught", extra={**extra, "seconds": round(time.monotonic() - began, 2)})

    # --- what takes long ----------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Weights and boundaries of pools that have grown, in a thread of its own: what comes meanwhile is taught."""
        if self._renewing is not None and self._renewing.is_alive():
            return
        due = {name: taught for name, taught in self._in_use.items() if self._teaching.is_due(name, taught)}
        if due:
            self._renewing = threading.Thread(target=self._renew_now, args=(due,), name="teaching-renewal", daemon=True)
            self._renewing.start()

    def _renew_now(self, due: Mapping[str, TaughtPool]) -> None:
        for name, taught in due.items():
            try:
                self._teaching.renew(name, taught, self._call)
            except (_ClosedError, CancelledError):
                return
            except Exception:
                if not self._stopping.is_set():
                    log.exception("what is estimated of a pool stays as it was", extra={"pool": name})
                continue
            self._renewed.add(name)

    def _take_renewed(self) -> set[str]:
        renewed = set()
        with contextlib.suppress(KeyError):
            while True:  # one by one: the other thread may add to it meanwhile
                renewed.add(self._renewed.pop())
        return renewed

    # --- the owner's thread -------------------------------------------------------------------------------------

    def _call(self, function: Callable[[], R], /) -> R:
        return self._on_owner(lambda _: function())

    def _on_owner(self, function: Callable[[Any], R]) -> R:
        self._check_stopping()
        answer: R = self._owner.submit_within(None, function).result()
        return answer


def _used(pipeline: Any, *, name: str, prepared: Any) -> bool:
    return bool(pipeline.use_pool(name, prepared))
