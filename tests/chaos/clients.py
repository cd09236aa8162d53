"""The suite's own eyes and hands on the topics: a client library that is not the one under test (kafka-python)."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from tests.chaos.tally import Emitted, Identity
from workers.local.clients import connect

__all__ = ["Feed", "Message", "Watch", "consumer", "emitted", "ends", "producer", "read_all"]

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 16 * 1024 * 1024
_OUTAGE_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a topic. ``identity``: whose result it asks for; None: none."""

    identity: Identity | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class Feed:
    """Sends messages at a steady rate, on a thread; what the brokers did not take is sent again until they do."""

    def __init__(self, bootstrap: str, topic: str, messages: Iterable[Message], *, per_second: float) -> None:
        self.sent: list[Identity] = []
        """What was acknowledged."""
        self.failure: BaseException | None = None
        self._bootstrap = bootstrap
        self._topic = topic
        self._messages = messages
        self._interval = 1.0 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-feed", daemon=True)

    def start(self) -> Feed:
        self._thread.start()
        return self

    @property
    def done(self) -> bool:
        """Whether everything was acknowledged, or the feed failed."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Send no more, and wait for what is on its way."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            with producer(self._bootstrap) as client:
                self._send(client)
        except BaseException as error:  # told to whoever waits for this thread
            self.failure = error

    def _send(self, client: Any) -> None:
        pending: deque[tuple[Message, Any]] = deque()
        begun = time.monotonic()
        for number, message in enumerate(self._messages):
            if self._stop.wait(max(0.0, begun + number * self._interval - time.monotonic())):
                break
            pending.append((message, _send(client, self._topic, message)))
            while pending and pending[0][1].is_done:
                self._settle(client, pending)
        while pending:
            with contextlib.suppress(KafkaError):
                pending[0][1].get(timeout=_OUTAGE_SECONDS)
            self._settle(client, pending)

    def _settle(self, client: Any, pending: deque[tuple[Message, Any]]) -> None:
        message, future = pending.popleft()
        if future.succeeded():
            if message.identity is not None:
                self.sent.append(message.identity)
        else:
            # It may have arrived all the same; a document that comes twice has one result.
            pending.append((message, _send(client, self._topic, message)))


class Watch:
    """Follows ``tagged-documents`` as a consumer downstream would: what is committed, and nothing else."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.emitted: list[Emitted] = []
        self.seen: set[Identity] = set()
        self._bootstrap = bootstrap
        self._topic = topic
        self._stop = threading.Event()
        self._positions: dict[Any, int] = {}
        self._thread = threading.Thread(target=self._run, name="chaos-watch", daemon=True)

    def start(self) -> Watch:
        self._thread.start()
        return self

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except KafkaError as error:
                log.info("the watch lost its brokers: %s", error)
                self._stop.wait(0.5)

    def _follow(self) -> None:
        with consumer(self._bootstrap, committed=True) as client:
            partitions = _partitions(client, self._topic)
            if not partitions:
                self._stop.wait(0.2)
                return
            client.assign(partitions)
            for partition in partitions:
                client.seek(partition, self._positions.get(partition, 0))
            while not self._stop.is_set():
                polled = client.poll(timeout_ms=100, max_records=2_000)
                now = time.monotonic()
                for partition, records in polled.items():
                    for record in records:
                        one = emitted(record, at=now)
                        self.emitted.append(one)
                        self.seen.add(one.document)
                    self._positions[partition] = records[-1].offset + 1


def emitted(record: Any, *, at: float = 0.0) -> Emitted:
    """A record of ``tagged-documents``."""
    if record.value is None:
        return Emitted((record.key.decode(), 0), None, record.partition, at)
    value = orjson.loads(record.value)
    return Emitted((value["id"], value["revision"]), value["status"], record.partition, at)


def read_all(bootstrap: str, topic: str, *, committed: bool = True, seconds: float = 60.0) -> list[Any]:
    """Every message of a topic as it is now; ``committed``: without those of open and aborted transactions."""
    with consumer(bootstrap, committed=committed) as client:
        partitions = _partitions(client, topic)
        until = client.end_offsets(partitions)
        client.assign(partitions)
        client.seek_to_beginning(*partitions)
        found: list[Any] = []
        end = time.monotonic() + seconds
        while any(client.position(partition) < until[partition] for partition in partitions):
            if time.monotonic() > end:
                places = {partition.partition: client.position(partition) for partition in partitions}
                raise AssertionError(f"{topic} could not be read within {seconds:g} s: at {places}, end {until}")
            for records in client.poll(timeout_ms=500, max_records=5_000).values():
                found.extend(records)
        return found


def ends(bootstrap: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The end of every partition, with what is in open transactions."""
    with consumer(bootstrap, committed=False) as client:
        partitions = [partition for topic in topics for partition in _partitions(client, topic)]
        return {(tp.topic, tp.partition): offset for tp, offset in client.end_offsets(partitions).items()}


def _send(client: Any, topic: str, message: Message) -> Any:
    while True:
        try:
            return client.send(
                topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                partition=message.partition,
            )
        except KafkaError as error:
            if not getattr(error, "retriable", True):
                raise
            log.info("the feed waits for its brokers: %s", error)


def _partitions(client: Any, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in sorted(client.partitions_for_topic(topic) or ())]


@contextlib.contextmanager
def producer(bootstrap: str) -> Iterator[Any]:
    client = _connected(
        lambda: connect(
            KafkaProducer,
            bootstrap_servers=bootstrap,
            acks="all",
            linger_ms=5,
            max_request_size=_MAX_BYTES,
            request_timeout_ms=10_000,
            delivery_timeout_ms=int(_OUTAGE_SECONDS * 1000),
        )
    )
    try:
        yield client
    finally:
        client.close(timeout=10)


@contextlib.contextmanager
def consumer(bootstrap: str, *, committed: bool) -> Iterator[Any]:
    client = _connected(
        lambda: connect(
            KafkaConsumer,
            bootstrap_servers=bootstrap,
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_auto_commit=False,
            group_id=None,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=_MAX_BYTES,
            request_timeout_ms=10_000,
        )
    )
    try:
        yield client
    finally:
        client.close()


def _connected(make: Callable[[], Any]) -> Any:
    """The client, as soon as a broker answers."""
    end = time.monotonic() + _OUTAGE_SECONDS
    while True:
        try:
            return make()
        except KafkaError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
