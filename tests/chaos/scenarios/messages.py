"""What may happen to the messages between the stages."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from tests.chaos.clients import consumer, producer
from tests.chaos.run import STAGES, Check, Message, Run, document, documents, message
from workers.topics import Topic

__all__ = ["rolling_upgrade", "stage_messages"]

STAGE_TOPICS = (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS)
COPY = "chaos-copy"
SHARE = 0.3
LATEST_S = 8.0
NEXT = ("el4ner-of-the-next-version", b"\xff\x00")


class Copier:
    """Sends stage messages again, byte for byte, to the partition they are on: later, and in another order."""

    def __init__(self, bootstrap: str, topics: list[str], random_: random.Random) -> None:
        self.copied = 0
        self._bootstrap = bootstrap
        self._topics = topics
        self._random = random_
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-copier", daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> Copier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Copy no more; what is still to be sent is sent."""
        self._stop.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            with consumer(self._bootstrap, committed=False) as reader, producer(self._bootstrap) as writer:
                reader.assign(
                    [
                        TopicPartition(topic, number)
                        for topic in self._topics
                        for number in sorted(reader.partitions_for_topic(topic) or ())
                    ]
                )
                self._copy(reader, writer)
        except KafkaError as error:
            self.failure = error

    def _copy(self, reader: Any, writer: Any) -> None:
        waiting: list[tuple[float, int, Any]] = []
        number = 0
        while not self._stop.is_set() or waiting:
            polled = {} if self._stop.is_set() else reader.poll(timeout_ms=50)
            now = time.monotonic()
            for records in polled.values():
                for record in records:
                    # A copy of a copy would never end.
                    if self._random.random() < SHARE and all(name != COPY for name, _ in record.headers):
                        number += 1
                        heapq.heappush(waiting, (now + self._random.uniform(0, LATEST_S), number, record))
            while waiting and (waiting[0][0] <= now or self._stop.is_set()):
                record = heapq.heappop(waiting)[2]
                writer.send(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=[*record.headers, (COPY, b"1")],
                    partition=record.partition,
                )
                self.copied += 1


def stage_messages(run: Run) -> Check | None:
    """A third of all stage messages come twice, the second time late and in any order."""
    run.deploy()
    names = [run.stream.name(topic) for topic in STAGE_TOPICS]
    copier: Copier = run.keep(Copier(run.bootstrap, names, run.random))
    feed = run.load(documents(run.random, 4_000), per_second=110)
    run.wait_tagged(500)
    # Whoever comes back finds messages and their copies side by side.
    run.fault()
    run.fleet.kill(run.fleet.of("aggregate")[0])
    run.wait(lambda: feed.done, "all documents to be sent")
    run.pause(LATEST_S)
    copier.close()
    assert copier.failure is None, f"copying failed: {copier.failure!r}"
    assert copier.copied > 1_000, f"only {copier.copied} messages were copied: the scenario is about nothing"
    return None


def rolling_upgrade(run: Run) -> Check | None:
    """Workers of an older version are replaced one by one by workers of a newer one, and back, with both in flight."""
    for stage in STAGES:
        for _ in range(2):
            run.fleet.add(stage, environ={"CHAOS_SCHEMA": "older"})
    run.wait_ready()
    run.load(_of_two_versions(run, 7_000), per_second=90)
    run.wait_tagged(200)
    statuses = []
    places = list(run.fleet)
    run.random.shuffle(places)
    # All of them go forward, and some of them back: an upgrade that is rolled back in the middle.
    for place, version in [*((place, "newer") for place in places), *((place, "older") for place in places[:2])]:
        run.fault()
        run.fleet.replace(place, environ={"CHAOS_SCHEMA": version})
        statuses.append((place.name, place.exits[-1]))
        run.wait_ready()

    def check(_: object) -> None:
        failed = [(name, status) for name, status in statuses if status != 0]
        assert not failed, f"workers that were told to stop did not end with status 0: {failed}"

    return check


def _of_two_versions(run: Run, count: int) -> Iterator[Message]:
    """Documents as an older producer writes them, and as one of a version that does not exist yet."""
    for number in range(count):
        value = document(run.random, number)
        if run.random.random() < 0.5:
            yield Message((value["id"], 0), value["id"].encode(), b'{"text": "Ada Lovelace in York %d."}' % number)
        else:
            value |= {"x_of_the_next_version": {"nested": [1, None]}, "x_language": "en"}
            yield message(value, headers=[NEXT])
