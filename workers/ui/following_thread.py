"""A thread that follows topics for the page, and begins again after what goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from kafka.errors import KafkaError

from el4ner.errors import El4nerError

__all__ = ["FollowingThread"]

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 5.0


class FollowingThread:
    """Safe to use from any thread. Nothing is followed before :meth:`start`.

    Args:
        what: it follows, as a plural in a sentence.
        follow: follows until :attr:`stopping` is set.
    """

    def __init__(self, name: str, what: str, follow: Callable[[], None]) -> None:
        self.changed = threading.Condition()
        """Holds :attr:`problem`, and what the follower keeps."""
        self.problem: str | None = None
        """Why it cannot be followed; None: it can, as far as is known."""
        self.stopping = threading.Event()
        self._what = what
        self._follow = follow
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Stop following, within so many seconds."""
        self.stopping.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                self._follow()
            except (KafkaError, El4nerError) as error:
                self._fail(str(error))
            except Exception:
                log.exception("following %s failed, and is tried again", self._what)
                self._fail(f"{self._what} cannot be read: a bug; the log has it")
            self.stopping.wait(_RETRY_SECONDS)

    def _fail(self, problem: str) -> None:
        with self.changed:
            if problem != self.problem:
                log.warning("%s cannot be read, and will be tried again: %s", self._what, problem)
            self.problem = problem
            self.changed.notify_all()
