"""The stream with a real embedder while Redis goes away and comes back."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.integration.conftest import Endpoints
from tests.integration.stream_harness import Stream, Worker, wait_until
from tests.integration.test_cache import Server
from tests.integration.test_stream import assert_exact, documents

pytestmark = [
    pytest.mark.integration,
    pytest.mark.models,
    pytest.mark.timeout(300),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


def cache_lines(worker: Worker) -> list[str]:
    return [str(line["event"]).split(":")[0] for line in worker.lines() if line.get("component") == "cache"]


def test_redis_away_is_one_warning_and_back_is_used_again(services: Endpoints, tmp_path: Path) -> None:
    redis = Server(tmp_path)
    # Repeated texts have to reach retrieval, instead of being answered from the worker's own memory.
    sections = {
        "method": {"repeats": "off"},
        "retrieval": {"kind": "span", "k": 2},
        "redis": {"retry_seconds": 0.2},
    }
    stream = Stream(services.kafka_bootstrap, redis.url, f"c{uuid.uuid4().hex[:8]}.", tmp_path, sections)
    try:
        stream.create_topics()
        worker = stream.start("all").wait_ready(timeout=200)
        sent = []

        def run(name: str) -> None:
            sent.extend(documents(10, name))
            stream.produce_documents(sent[-10:])
            stream.wait_tagged(len(sent))

        run("a")
        # The same texts under other ids: retrieval is found in the cache.
        run("b")
        redis.kill()
        run("c")
        run("d")
        assert cache_lines(worker) == ["Redis is away"]
        redis.start()

        def again() -> bool:
            run(f"e{len(sent)}")
            return "Redis is back" in cache_lines(worker)

        wait_until(again, timeout=60, what="Redis is used again")
        assert cache_lines(worker) == ["Redis is away", "Redis is back"]
        assert_exact(stream.tagged(), sent)
        assert worker.stop() == 0
        (counted,) = [line for line in worker.lines() if line.get("event") == "retrieval cache"]
        assert counted["hits"] > 0
        assert counted["misses"] > 0
    finally:
        stream.close()
        redis.kill()
