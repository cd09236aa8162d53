"""What is kept in Redis, against a real server that is killed, restarted and slow."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.config import RedisSettings
from workers.local.ports import choose_port
from workers.local.valkey_server import _find_binary
from workers.shared_cache.answer_store import RedisAnswerStore
from workers.shared_cache.redis_client import RedisClient
from workers.shared_cache.retrieval_cache import KEY_PREFIX, RedisRetrievalCache

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class Server:
    """A Valkey of the test's own, on a port that stays the same when it is restarted."""

    def __init__(self, folder: Path) -> None:
        binary = _find_binary()
        assert binary is not None
        self.port = choose_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [str(binary), "--port", str(self.port), "--save", "", "--dir", str(folder)]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError("Valkey does not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=10)
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def client(server: Server) -> Iterator[RedisClient]:
    made = RedisClient(RedisSettings(url=server.url, retry_seconds=0.2))
    yield made
    made.close()


@pytest.fixture
def cache(client: RedisClient) -> RedisRetrievalCache:
    return RedisRetrievalCache(client, ttl_seconds=60)


def test_what_was_set_is_found_under_a_versioned_key_that_expires(cache: RedisRetrievalCache) -> None:
    assert cache.get_many([]) == []
    cache.set_many({})
    assert cache.get_many(["a", "b"]) == [None, None]
    cache.set_many({"a": b"1", "b": b"\x00\xff"})
    assert cache.get_many(["b", "missing", "a"]) == [b"\x00\xff", None, b"1"]
    assert 0 < cache._client._redis.ttl(f"{KEY_PREFIX}a") <= 60
    assert (cache.counters.hits, cache.counters.misses, cache.counters.errors) == (2, 3, 0)


def test_away_means_misses_and_one_warning_and_back_means_hits(
    server: Server, cache: RedisRetrievalCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cache.set_many({"a": b"1"})
    server.kill()
    for _ in range(50):
        assert cache.get_many(["a"]) == [None]
        cache.set_many({"a": b"2"})
    time.sleep(0.25)
    assert cache.get_many(["a"]) == [None]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert 1 <= cache.counters.errors <= 4
    server.start()
    time.sleep(0.25)
    assert cache.get_many(["a"]) == [None]
    cache.set_many({"a": b"3"})
    assert cache.get_many(["a"]) == [b"3"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "back" in caplog.records[-1].message
    server.kill()
    assert cache.get_many(["a"]) == [None]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_a_server_that_hangs_costs_one_timeout_and_not_one_for_every_call(
    server: Server, cache: RedisRetrievalCache
) -> None:
    cache.set_many({"a": b"1"})
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        for _ in range(20):
            assert cache.get_many(["a"]) == [None]
        assert time.monotonic() - begun < 2.0
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_answers_are_kept_by_stage_under_versioned_keys_that_expire(client: RedisClient) -> None:
    store = RedisAnswerStore(client, ["extract", "classify"], ttl_seconds=60)
    assert store.get_many("extract", []) == []
    store.put_many("extract", {})
    many = {f"{number:040x}": bytes([number % 256]) * 1_000 for number in range(1_700)}
    assert store.get_many("extract", list(many)) == [None] * len(many)
    store.put_many("extract", many)
    assert store.get_many("extract", [*many, "missing"]) == [*many.values(), None]
    assert store.get_many("classify", list(many)[:2]) == [None, None]
    assert 0 < client._redis.ttl(f"el4ner:answers:v1:extract:{0:040x}") <= 60
    assert store.counters["extract"].errors == 0


def test_answers_of_a_store_that_is_away_are_misses_and_errors_of_their_stage(
    server: Server, client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisAnswerStore(client, ["extract", "classify"], ttl_seconds=60)
    store.put_many("classify", {"a": b"1"})
    server.kill()
    for _ in range(5):
        assert store.get_many("classify", ["a", "b"]) == [None, None]
        store.put_many("classify", {"a": b"2"})
        assert store.get_many("extract", ["a"]) == [None]
    assert store.counters["classify"].errors == 1
    assert store.counters["extract"].errors == 0, "left alone"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_more_callers_than_connections_wait_their_turn(server: Server) -> None:
    client = RedisClient(RedisSettings(url=server.url, max_connections=2, timeout_seconds=5.0))
    cache = RedisRetrievalCache(client, ttl_seconds=60)
    cache.set_many({"a": b"1"})
    found: list[bytes | None] = []

    def ask() -> None:
        for _ in range(20):
            found.extend(cache.get_many(["a"]))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert found == [b"1"] * 320
    assert cache.counters.errors == 0
