"""Sending to a topic with every delivery confirmed, in order (kafka-python; for programs and the command line)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from kafka import KafkaProducer
from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from workers.config import KafkaSettings
from workers.kafka import broker

__all__ = ["Confirmations", "sending"]

T = TypeVar("T")


@contextmanager
def sending(
    settings: KafkaSettings, failure: type[El4nerError], *, client_id: str, max_request_size: int
) -> Iterator[Any]:
    """An idempotent producer that waits for all in-sync replicas.

    Raises:
        El4nerError: of the kind ``failure``: no broker, or what the block met of Kafka's errors.
    """
    producer = broker.connect(
        settings,
        KafkaProducer,
        failure,
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_request_size=max_request_size,
        max_block_ms=int(settings.request_timeout_seconds * 1000),
    )
    try:
        yield producer
    except KafkaError as error:
        raise failure(f"producing to {settings.bootstrap_servers} failed: {error}") from error
    finally:
        # What was not confirmed is reported by now; that closing waits for it in vain adds nothing.
        with suppress(KafkaError):
            producer.close(timeout=settings.request_timeout_seconds)


class Confirmations(Generic[T]):
    """The messages that a producer was given, reported one by one and in order as the broker confirms them.

    Args:
        settings: ``request_timeout_seconds`` is how long a confirmation is waited for.
        most: so many messages may be on their way.
        delivered: called for each message, with where the broker has it now.
        failed: makes the error of a message that was not delivered; None: it was seen to, and the others go on.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        most: int,
        delivered: Callable[[T, Any], None],
        failed: Callable[[T, KafkaError], El4nerError | None],
    ) -> None:
        self.count = 0
        """How many the broker has confirmed."""
        self._timeout = settings.request_timeout_seconds
        self._most = most
        self._delivered = delivered
        self._failed = failed
        self._waiting: deque[tuple[T, Any]] = deque()

    def add(self, item: T, future: Any) -> None:
        """Add a message that is on its way. Reports those that have arrived, and waits if there are too many."""
        self._waiting.append((item, future))
        self._settle(self._most)

    def finish(self, producer: Any) -> None:
        """Wait until the broker has every one."""
        producer.flush(timeout=self._timeout)
        self._settle(0)

    def drain(self, producer: Any, undelivered: Callable[[T], None]) -> None:
        """After a failure: wait for what is on its way, and report what the broker has.

        ``undelivered`` is called first, for each message without a confirmation: the broker may have it and be
        unable to say so.
        """
        with suppress(KafkaError):
            producer.flush(timeout=self._timeout)
        # A future may be done a moment later: each is asked once.
        waiting = [(item, future, future.succeeded()) for item, future in self._waiting]
        self._waiting.clear()
        for item, _, arrived in waiting:
            if not arrived:
                undelivered(item)
        for item, future, arrived in waiting:
            if arrived:
                self.count += 1
                self._delivered(item, future.value)

    def _settle(self, keep: int) -> None:
        while self._waiting and (len(self._waiting) > keep or self._waiting[0][1].is_done):
            item, future = self._waiting[0]
            try:
                sent = future.get(timeout=self._timeout)
            except KafkaError as error:
                # Still waiting: it is one of those that `drain` returns.
                failure = self._failed(item, error)
                if failure is not None:
                    raise failure from error
                self._waiting.popleft()
                continue
            self._waiting.popleft()
            self.count += 1
            self._delivered(item, sent)
