"""Retrieval results in Redis (or Valkey). Redis away means misses, never an error and never a wait for long.

The client is the synchronous one: it is called on the engine's own thread, where nothing else could run meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers import security
from workers.config import RedisSettings

__all__ = ["CacheCounters", "RedisRetrievalCache"]

log = logging.getLogger(__name__)

KEY_PREFIX: Final = "el4ner:retrieval:v1:"
"""The version changes when the bytes behind a key would be read differently."""


@dataclass(slots=True)
class CacheCounters:
    """Since the start: keys found, keys not found (those of an unreachable cache too), and calls that failed."""

    hits: int = 0
    misses: int = 0
    errors: int = 0


class RedisRetrievalCache:
    """A :class:`el4ner.retrieval.cache.RetrievalCache`.

    After a call that failed, the cache is not asked for ``redis.retry_seconds``. The log has one warning when it goes
    away and one line when it is back.
    """

    def __init__(self, settings: RedisSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.counters = CacheCounters()
        self._settings = settings
        self._monotonic = monotonic
        self._away_until: float | None = None
        # A pool that blocks: redis-py's default one raises when all connections are in use.
        self._pool = redis.BlockingConnectionPool.from_url(
            settings.url,
            max_connections=settings.max_connections,
            timeout=settings.timeout_seconds,
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=settings.timeout_seconds,
            # Trying again is what retry_seconds is for; here it would only make the engine wait.
            retry=Retry(NoBackoff(), 0),
            **security.redis_options(settings),
        )
        self._redis: Any = redis.Redis(connection_pool=self._pool)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none."""
        if not keys:
            return []
        stored = self._try(lambda: self._redis.mget([KEY_PREFIX + key for key in keys]))
        values: list[bytes | None] = [None] * len(keys) if stored is None else list(stored)
        hits = sum(value is not None for value in values)
        self.counters.hits += hits
        self.counters.misses += len(keys) - hits
        return values

    def set_many(self, items: Mapping[str, bytes]) -> None:
        """Keep the items for ``redis.ttl_seconds``, if it can."""
        if items:
            self._try(lambda: self._set(items))

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._pool.disconnect()

    def _set(self, items: Mapping[str, bytes]) -> bool:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in items.items():
            pipeline.set(KEY_PREFIX + key, value, ex=self._settings.ttl_seconds)
        pipeline.execute()
        return True

    def _try(self, call: Callable[[], Any]) -> Any:
        """What ``call`` returns, or None if the cache is away."""
        if self._away_until is not None and self._monotonic() < self._away_until:
            return None
        try:
            result = call()
        except (redis.RedisError, OSError) as error:
            self.counters.errors += 1
            if self._away_until is None:
                log.warning(
                    "Redis is away: retrieval goes on without its cache, slower, with the same results (%s); "
                    "redis.url, or REDIS_URL, is %s; redis.enabled = false does without",
                    error,
                    self._settings.url,
                    extra={"component": "cache"},
                )
            self._away_until = self._monotonic() + self._settings.retry_seconds
            return None
        if self._away_until is not None:
            self._away_until = None
            log.info("Redis is back: retrieval uses its cache again", extra={"component": "cache"})
        return result
