"""The pools as they are taught, for the page: their files, and the topic ``pool-examples``, which a thread follows.

A lesson asks here for what is in force instead of reading the topic, which may have ten thousand examples.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from el4ner.pools import Pool, load_pools
from el4ner.pools.examples import PoolExample
from el4ner.pools.taught import TaughtPool, taught_pool
from workers.config import StreamSettings
from workers.messages.pool_examples import ExampleKey
from workers.teaching.followed_examples import followed_examples
from workers.teaching.taught_examples import TaughtExamples
from workers.teaching.topic_examples import TeachingError
from workers.ui.following_thread import FollowingThread

__all__ = ["PoolExamples", "TaughtPools"]

_POLL_MS: Final = 200
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
        self._following = FollowingThread("taught-pools", "what pools are taught", self._follow)
        self._changed = self._following.changed
        """Holds what follows."""
        self._examples: TaughtExamples | None = None
        self._version = 0
        self._taught: dict[str, tuple[int, TaughtPool]] = {}

    def start(self) -> None:
        """Begin to follow the topic."""
        self._following.start()

    def close(self, seconds: float) -> None:
        """Stop following, within so many seconds."""
        self._following.close(seconds)

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
            self._changed.wait_for(
                lambda: self._examples is not None or self._following.problem is not None, self._patience
            )
            problem = self._following.problem
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

    def _follow(self) -> None:
        with followed_examples(self._settings.kafka) as followed:
            examples = TaughtExamples()
            while not followed.is_read:
                if self._following.stopping.is_set():
                    return
                examples.take_in(followed.poll(_POLL_MS))
            with self._changed:
                self._examples, self._following.problem = examples, None
                self._advance()
            while not self._following.stopping.is_set():
                records = followed.poll(_POLL_MS)
                if records:
                    with self._changed:
                        examples.take_in(records)
                        self._advance()

    def _advance(self) -> None:
        self._version += 1
        self._changed.notify_all()
