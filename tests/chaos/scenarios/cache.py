"""What may happen to Redis."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError

from tests.chaos.proxy import Proxy
from tests.chaos.reaper import Reaper
from tests.chaos.run import STAGES, Check, Message, Run, document, message
from workers.local.ports import LOOPBACK, choose_port
from workers.local.processes import is_running, wait_until
from workers.local.state import ServiceRecord
from workers.local.valkey_server import ValkeyServer

__all__ = ["ANSWERS", "SECTIONS", "redis_away"]

SECTIONS = {
    # Repeated texts have to reach retrieval, instead of being answered from the worker's own memory.
    "method": {"repeats": "off"},
    "retrieval": {"kind": "span", "k": 2},
    "redis": {"enabled": True, "retry_seconds": 0.5},
}
ANSWERS = {
    # A worker's own memory is small, so that repeated texts are looked up among what all workers were asked.
    "method": {"repeats": "exact", "repeat_cache_sentences": 5},
    "redis": {"enabled": True, "retry_seconds": 0.5},
}
TEXTS = 60


@dataclass
class _Cache:
    server: ValkeyServer
    reaper: Reaper
    record: ServiceRecord | None = None

    def start(self) -> None:
        self.record = self.server.start()
        if self.record.process is not None:
            self.reaper.watch(self.record.process)

    def kill(self) -> None:
        process = self.record.process if self.record is not None else None
        if process is not None and is_running(process):
            os.kill(process.pid, signal.SIGKILL)
            wait_until(lambda: not is_running(process), timeout_s=10)

    def ask(self, command: str) -> dict[str, int]:
        with contextlib.closing(redis.Redis(port=self.server.port or 0)) as client:
            if command == "flush":
                client.flushall()
            info = client.info("stats")
            return {name: int(info[name]) for name in ("keyspace_hits", "keyspace_misses")}


def redis_away(run: Run) -> Check | None:
    """Redis is killed, restarted, flushed, slowed down beyond its time limit, and hangs."""
    cache = _Cache(ValkeyServer(run.folder / "valkey", choose_port(), environ=os.environ), run.world.reaper)
    cache.start()
    run.keep(contextlib.ExitStack()).callback(cache.kill)
    port = choose_port()
    proxy: Proxy = run.keep(Proxy({port: cache.server.port or 0}))
    environ = {
        "EL4NER_REDIS__URL": f"redis://{LOOPBACK}:{port}/0",
        # The index of the pool's made-up vectors is nobody else's.
        "EL4NER_CACHE_DIR": str(run.folder / "models"),
    }
    for stage in STAGES:
        run.fleet.add(stage, environ=environ)
    run.wait_ready()
    run.load(_repeated(run, 5_000), per_second=100)
    run.wait_tagged(500)
    hits = cache.ask("look")["keyspace_hits"]
    assert hits > 0, "nothing was found in the cache: the scenario is about nothing"
    run.fault()
    cache.kill()
    run.pause(run.random.uniform(2.0, 4.0))
    cache.start()
    run.pause(run.random.uniform(2.0, 4.0))
    for _ in range(5):
        with contextlib.suppress(RedisError):
            cache.ask("flush")
        run.pause(run.random.uniform(0.1, 0.5))
    run.fault()
    proxy.slow_down(run.random.uniform(0.3, 1.0))
    run.pause(5.0)
    proxy.slow_down(0.0)
    run.pause(2.0)
    run.fault()
    proxy.hold()
    run.pause(5.0)
    proxy.release()
    run.fault()
    proxy.cut()
    run.pause(2.0)
    proxy.mend()
    run.pause(3.0)
    before = cache.ask("look")["keyspace_hits"]
    run.wait(lambda: cache.ask("look")["keyspace_hits"] > before, "the cache to be used again", seconds=30)
    return None


def _repeated(run: Run, count: int) -> Iterator[Message]:
    """Many documents, few texts."""
    texts = [document(run.random, number)["text"] for number in range(TEXTS)]
    return (message({"id": f"d-{number}", "text": run.random.choice(texts)}) for number in range(count))
