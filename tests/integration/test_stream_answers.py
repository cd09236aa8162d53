"""What one worker of a fleet was asked, all answer: other workers, later ones, and with Redis killed in between."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Endpoints
from tests.integration.stream_harness import Stream, Worker, wait_until
from tests.integration.test_cache import Server
from tests.integration.test_stream import assert_exact, documents

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]
SECTIONS = {"redis": {"retry_seconds": 0.2}, "method": {"validation": "soft"}}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "redis").mkdir()
    server = Server(tmp_path / "redis")
    yield server
    server.kill()


def stream_of(services: Endpoints, redis: Server, folder: Path) -> Stream:
    folder.mkdir()
    stream = Stream(services.kafka_bootstrap, redis.url, f"s{uuid.uuid4().hex[:8]}.", folder, SECTIONS)
    stream.create_topics()
    return stream


def lines(count: int, run: str, *, first: int = 0) -> list[dict[str, Any]]:
    """Log lines of one template, each with other numbers."""
    return [
        {
            "id": f"{run}-line-{number}",
            "pool": "logs",
            "text": f"sshd[{number}]: Failed password for root from 10.0.7.{number % 250 + 1} port {number + 2000}",
        }
        for number in range(first + 1, first + count + 1)
    ]


def tag(stream: Stream, sent: list[dict[str, Any]], more: Sequence[dict[str, Any]]) -> None:
    stream.produce_documents(more)
    sent.extend(more)
    stream.wait_tagged(len(sent))


def counted(*workers: Worker) -> tuple[Counter[str], Counter[str]]:
    """What the workers found, and did not find, among what all were asked, by stage: as they log when they stop."""
    hits: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    for worker in workers:
        for line in worker.lines():
            if line.get("event") == "shared answers":
                hits[line["stage"]] += line["hits"]
                misses[line["stage"]] += line["misses"]
    return hits, misses


def entities(stream: Stream, run: str) -> dict[str, Any]:
    """By the document's id without the run's name."""
    return {
        document["id"].removeprefix(run): document["entities"]
        for document in stream.tagged()
        if document["id"].startswith(run)
    }


def test_what_one_worker_answered_others_answer_and_so_does_whoever_comes_after_it(
    services: Endpoints, redis: Server, tmp_path: Path
) -> None:
    first, second = (stream_of(services, redis, tmp_path / name) for name in ("first", "second"))
    try:
        worker = first.start("all").wait_ready(timeout=120)
        sent: list[dict[str, Any]] = []
        tag(first, sent, [*documents(8, "a"), *lines(20, "a")])
        # Other workers are alive at the same time, with stages of their own.
        others = [second.start("extract", "validate"), second.start("classify", "aggregate")]
        for other in others:
            other.wait_ready(timeout=120)
        sent_to_others: list[dict[str, Any]] = []
        tag(second, sent_to_others, [*documents(8, "b"), *lines(20, "b", first=500)])
        assert worker.stop() == 0
        # Whoever comes after it does all in one hop.
        again = first.start("pipeline").wait_ready(timeout=120)
        tag(first, sent, [*documents(8, "c"), *lines(20, "c", first=700)])
        assert again.stop() == 0
        assert [other.stop() for other in others] == [0] * len(others)
        hits, misses = counted(worker)
        assert misses["extract"] > 0
        for workers in (others, [again]):
            hits, misses = counted(*workers)
            assert set(hits) == {"extract", "classify", "validate"}
            assert all(hits[stage] > 0 for stage in hits)
            assert set(misses.values()) == {0}
        assert_exact(first.tagged(), sent)
        assert_exact(second.tagged(), sent_to_others)
        answered = entities(first, "a-")
        for stream, run in ((second, "b-"), (first, "c-")):
            repeated = entities(stream, run)
            assert {name: answered[name] for name in map(str, range(8))} == {
                name: repeated[name] for name in map(str, range(8))
            }
    finally:
        first.close()
        second.close()


def test_redis_killed_in_between_is_one_warning_and_costs_no_document(
    services: Endpoints, redis: Server, tmp_path: Path
) -> None:
    stream = stream_of(services, redis, tmp_path / "stream")
    try:
        worker = stream.start("all").wait_ready(timeout=120)
        sent: list[dict[str, Any]] = []
        tag(stream, sent, [*documents(8, "a"), *lines(8, "a")])
        redis.kill()
        tag(stream, sent, [*documents(20, "b"), *lines(20, "b", first=300)])
        events = [str(line["event"]).split(":")[0] for line in worker.lines() if line.get("component") == "cache"]
        assert events == ["Redis is away"]
        redis.start()
        runs = 0

        def back() -> bool:
            nonlocal runs
            runs += 1
            new = [{"id": f"new-{runs}-{number}", "text": f"Run {runs}: Zoë met Max {number}."} for number in range(3)]
            tag(stream, sent, new)
            return any(str(line["event"]).startswith("Redis is back") for line in worker.lines())

        wait_until(back, timeout=60, what="Redis is used again")
        tag(stream, sent, [{"id": "known", "text": "Zoë met Max in Rome."}])
        assert worker.stop() == 0
        assert_exact(stream.tagged(), sent)
        # What was answered while Redis was back is there for whoever comes next.
        after = stream.start("all").wait_ready(timeout=120)
        tag(stream, sent, [{"id": "after", "text": "Zoë met Max in Rome."}])
        assert after.stop() == 0
        hits, misses = counted(after)
        assert (hits["extract"], misses["extract"]) == (1, 0)
        assert_exact(stream.tagged(), sent)
    finally:
        stream.close()
