"""A pipeline under test: real topics, real worker processes, and what comes out of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.support.paths import ROOT
from workers.config import StreamSettings, load_stream_settings
from workers.kafka import topic_admin
from workers.topics import Topic, app_id, topic_name

STAGES = ("extract", "classify", "validate", "aggregate")
_LOG_CHARACTERS = 3_000
_FRAMES = 6


def wait_until(condition: Callable[[], Any], *, timeout: float = 60.0, every: float = 0.1, what: str = "") -> Any:
    """What ``condition`` gives as soon as it is true; fails after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(every)


@dataclass
class Worker:
    """A worker process: ``python -m workers STAGE…``."""

    stages: tuple[str, ...]
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Its log records."""
        records = []
        for line in self.log.read_bytes().splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                records.append(orjson.loads(line))
        return records

    def ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.stages} ended with {self.process.returncode}:\n{self.log.read_text()[-6000:]}")
        return any(line.get("event") == "ready" for line in self.lines())

    def wait_ready(self, timeout: float = 60.0) -> Worker:
        wait_until(self.ready, timeout=timeout, what=f"{self.stages} ready; {self.log}")
        return self

    def kill(self) -> None:
        """``kill -9``."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=timeout)

    def last_words(self) -> str:
        """What explains a failed test: the end of its log and how the process ended, or where its threads stood if it
        still ran (it is ended by that)."""
        logged = self.log.read_text(errors="replace")
        ended = self.process.poll()
        if ended is None:
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
        stood = self.log.read_text(errors="replace")[len(logged) :].split("\n\n")
        threads = "\n".join("\n".join(thread.splitlines()[:_FRAMES]) for thread in stood)
        end = threads if ended is None else f"it had ended with {ended}"
        return f"{logged[-_LOG_CHARACTERS:]}\n{self.log.name}: {end}"


@dataclass
class Stream:
    """Topics, configuration and processes of one test."""

    bootstrap: str
    redis_url: str
    prefix: str
    folder: Path
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.folder / "el4ner.toml"
        sections: dict[str, dict[str, Any]] = {
            "ensemble": {"preset": "instant"},
            "kafka": {
                "bootstrap_servers": self.bootstrap,
                "topic_prefix": self.prefix,
                # A worker that a crowded machine stops for longer than this loses its partitions, and ends if it was
                # writing. Brokers take no less than 6.
                "session_timeout_seconds": 10.0,
            },
            "redis": {"url": self.redis_url},
            "worker": {"data_dir": str(self.folder / "data"), "log_format": "json"},
        }
        for name, table in self.sections.items():
            sections.setdefault(name, {}).update(table)
        # JSON strings, numbers and booleans are TOML's.
        self.config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in table.items())
                for name, table in sections.items()
            )
        )
        self.settings: StreamSettings = load_stream_settings(self.config, environ={})

    # --- topics ---

    def create_topics(self) -> None:
        topic_admin.create(self.settings)

    def name(self, topic: Topic) -> str:
        return topic_name(self.settings.kafka, topic)

    def ends(self, topic: Topic) -> int:
        """How many messages were ever written to a topic."""
        with self.consumer() as consumer:
            return sum(consumer.end_offsets(self._partitions(consumer, topic)).values())

    def committed(self, stage: str) -> dict[tuple[str, int], int]:
        """The committed offsets of a stage's group."""
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            group = app_id(self.settings.kafka, stage)
            listed = admin.list_group_offsets({group: None})[group]
        return {(tp.topic, tp.partition): offset.offset for tp, offset in listed.items() if offset.offset >= 0}

    # --- processes ---

    def start(self, *stages: str, environ: Mapping[str, str] | None = None, module: str = "workers") -> Worker:
        log = self.folder / f"{'-'.join(stages)}-{len(self.workers)}.log"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"} and not name.startswith("EL4NER_")
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *stages, "--config", str(self.config)],
                cwd=ROOT,
                env={**inherited, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        worker = Worker(stages, process, log)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()

    # --- messages ---

    @contextlib.contextmanager
    def consumer(self) -> Iterable[Any]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            group_id=None,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=16 * 1024 * 1024,
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def produce(self, messages: Iterable[tuple[bytes | None, bytes | None]], **options: Any) -> None:
        """Key and value to ``documents``; returns when all are delivered."""
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", linger_ms=5, max_request_size=16 * 1024 * 1024
        )
        try:
            name = self.name(options.pop("topic", Topic.DOCUMENTS))
            sent = [producer.send(name, key=key, value=value, **options) for key, value in messages]
            for future in sent:
                future.get(timeout=30)
        finally:
            producer.close()

    def produce_documents(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self.produce((document["id"].encode(), orjson.dumps(document)) for document in documents)

    def read(self, topic: Topic | str) -> list[Any]:
        """Every message of a topic as it is now; one that is not in :class:`Topic` by its name on the broker."""
        with self.consumer() as consumer:
            partitions = self._partitions(consumer, topic)
            ends = consumer.end_offsets(partitions)
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            found: list[Any] = []
            end = time.monotonic() + 60
            while any(consumer.position(tp) < ends[tp] for tp in partitions):
                if time.monotonic() > end:
                    raise AssertionError(f"{topic} cannot be read")
                for records in consumer.poll(timeout_ms=500).values():
                    found.extend(records)
            return found

    def tagged(self) -> list[dict[str, Any]]:
        return [orjson.loads(record.value) for record in self.read(Topic.TAGGED_DOCUMENTS)]

    def wait_tagged(self, count: int, *, timeout: float = 90.0) -> None:
        """Until so many tagged documents were written."""
        self.wait_written(Topic.TAGGED_DOCUMENTS, count, timeout=timeout)

    def wait_written(self, topic: Topic, count: int, *, timeout: float = 90.0) -> None:
        """Until so many messages were committed to a topic. Offsets do not tell: transactions take some too."""
        with self.consumer() as consumer:
            partitions = self._partitions(consumer, topic)
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            seen = 0

            def enough() -> bool:
                nonlocal seen
                seen += sum(map(len, consumer.poll(timeout_ms=200, max_records=5_000).values()))
                return seen >= count

            wait_until(enough, timeout=timeout, every=0.0, what=f"{count} messages on {topic}")

    def _partitions(self, consumer: Any, topic: Topic | str) -> list[TopicPartition]:
        name = self.name(topic) if isinstance(topic, Topic) else topic
        return [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name) or set())]
