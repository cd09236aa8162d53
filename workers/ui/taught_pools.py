"""The pools as they are taught, for the page: their files, and the topic ``pool-examples``, which a thread follows.

A lesson asks here for what is in force instead of reading the topic, which may have ten thousand examples.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from el4ner.pools import Pool, load_pools
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import TaughtPool, taught_pool
from workers.config import StreamSettings
from workers.messages.pool_examples import ExampleKey
from workers.teaching.followed_examples import followed_examples
from workers.teaching.taught_examples import TaughtExamples
from workers.teaching.topic_examples import TeachingError

__all__ = ["PoolExamples", "TaughtPools"]

log = logging.getLogger(__name__)

_POLL_MS: Final = 200
_RETRY_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 10.0
"""How long a lesson waits for the topic to be read, and one that was taught to come back from it."""


@dataclass(frozen=True, slots=True)
class PoolExamples:
    """A pool's examples that are in force. ``version``: another one whenever they may have changed."""

    version: int
    examples: Sequence[PoolExample]


class TaughtPools:
    """Safe to call from any thread. Nothing is read before :meth:`start`."""

    def __init__(self, settings: StreamSettings, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._settings = settings
        self._patience = patience_seconds
        self._loading = threading.Lock()
        self._files: Mapping[str, Pool] | None = None
        self._changed = threading.Condition()
        """Holds what follows."""
        self._examples: TaughtExamples | None = None
        self._version = 0
        self._problem: str | None = None
        self._taught: dict[str, tuple[int, TaughtPool]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taught-pools", daemon=True)

    def start(self) -> None:
        """Begin to follow the topic."""
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Stop following, within so many seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def files(self) -> Mapping[str, Pool]:
        """The pools' files, which are read once.

        Raises:
            El4nerError: one of them cannot be read.
        """
        with self._loading:
            if self._files is None:
                self._files = load_pools(self._settings.pools)
            return self._files

    def taught(self, name: str) -> TaughtPool:
        """A pool, which is one of :meth:`files`, as it is taught now.

        Raises:
            TeachingError: the topic was not read yet: no broker, or no topic.
        """
        base, known = self.files()[name], self.examples(name)
        with self._changed:
            version, taught = self._taught.get(name, (-1, None))
        if taught is None or version != known.version:
            taught = taught_pool(base, known.examples)
            with self._changed:
                self._taught[name] = (known.version, taught)
        return taught

    def examples(self, name: str) -> PoolExamples:
        """What a pool was taught.

        Raises:
            TeachingError: the topic was not read yet.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._examples is not None or self._problem is not None, self._patience)
            problem = self._problem
        known = self.known_examples(name)
        if known is None:
            raise TeachingError(problem or "what pools are taught is still being read")
        return known

    def known_examples(self, name: str) -> PoolExamples | None:
        """As :meth:`examples`, without waiting; None: the topic was not read yet."""
        with self._changed:
            return None if self._examples is None else PoolExamples(self._version, self._examples.of(name))

    @property
    def version(self) -> int:
        """That of what is known now; 0: nothing."""
        return self._version

    def wait_for(self, key: ExampleKey, example: PoolExample) -> bool:
        """Until the example, or a later one of its text, has come back from the topic; False: it takes too long."""

        def is_known() -> bool:
            known = None if self._examples is None else self._examples.get(key)
            return known is not None and known.taught_at >= example.taught_at

        with self._changed:
            return self._changed.wait_for(is_known, self._patience)

    # --- on the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except (KafkaError, El4nerError) as error:
                self._fail(str(error))
            except Exception:
                log.exception("following what pools are taught failed, and is tried again")
                self._fail("what pools are taught cannot be read: a bug; the log has it")
            self._stopping.wait(_RETRY_SECONDS)

    def _follow(self) -> None:
        with followed_examples(self._settings.kafka) as followed:
            examples = TaughtExamples()
            while not followed.is_read:
                if self._stopping.is_set():
                    return
                examples.take_in(followed.poll(_POLL_MS))
            with self._changed:
                self._examples, self._problem = examples, None
                self._advance()
            while not self._stopping.is_set():
                records = followed.poll(_POLL_MS)
                if records:
                    with self._changed:
                        examples.take_in(records)
                        self._advance()

    def _advance(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _fail(self, problem: str) -> None:
        with self._changed:
            if problem != self._problem:
                log.warning("what pools are taught cannot be read, and is tried again: %s", problem)
            self._problem = problem
            self._changed.notify_all()
