"""Retrieval results in Redis: which demonstrations a sentence got, in the modes that show any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from workers.shared_cache.redis_client import RedisClient

__all__ = ["CacheCounters", "RedisRetrievalCache"]

KEY_PREFIX: Final = "el4ner:retrieval:v1:"
"""The version changes when the bytes behind a key would be read differently."""


@dataclass(slots=True)
class CacheCounters:
    """Since the start: keys found, keys not found (those of an unreachable cache too), and calls that failed."""

    hits: int = 0
    misses: int = 0
    errors: int = 0


class RedisRetrievalCache:
    """A :class:`el4ner.retrieval.cache.RetrievalCache`. ``ttl_seconds``: how long an item is kept."""

    def __init__(self, client: RedisClient, *, ttl_seconds: int) -> None:
        self.counters = CacheCounters()
        self._client = client
        self._ttl_seconds = ttl_seconds

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none."""
        if not keys:
            return []
        stored = self._client.ask(lambda redis: redis.mget([KEY_PREFIX + key for key in keys]), failed=self._failed)
        values: list[bytes | None] = [None] * len(keys) if stored is None else list(stored)
        hits = sum(value is not None for value in values)
        self.counters.hits += hits
        self.counters.misses += len(keys) - hits
        return values

    def set_many(self, items: Mapping[str, bytes]) -> None:
        """Keep the items, if it can."""

        def set_all(redis: Any) -> None:
            pipeline = redis.pipeline(transaction=False)
            for key, value in items.items():
                pipeline.set(KEY_PREFIX + key, value, ex=self._ttl_seconds)
            pipeline.execute()

        if items:
            self._client.ask(set_all, failed=self._failed)

    def _failed(self) -> None:
        self.counters.errors += 1
