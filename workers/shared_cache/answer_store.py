"""Answers by content in Redis: what one worker of a fleet was asked, all may answer, also after a restart.

What a key and a value are made of is :mod:`el4ner.repeats.shared_answers`'. Redis may forget any of them at any time:
values expire, and its ``maxmemory-policy`` may evict them before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from workers.shared_cache.redis_client import RedisClient

__all__ = ["AnswerCounters", "RedisAnswerStore"]

KEY_PREFIX: Final = "el4ner:answers:v1:"
"""The version changes when keys or values would be read differently."""
_AT_ONCE: Final = 500
"""The most keys of one command: Redis answers nobody else meanwhile."""


@dataclass(slots=True)
class AnswerCounters:
    """Of one stage, since the start: sentences and templates that were looked up and found, or not (those too that were
    looked up while Redis was away), values that were of no use, and calls that failed."""

    hits: int = 0
    misses: int = 0
    damaged: int = 0
    errors: int = 0


class RedisAnswerStore:
    """A :class:`el4ner.repeats.AnswerStore`.

    Args:
        client: of the process.
        stages: that will ask.
        ttl_seconds: how long an answer is kept after it was last written.
    """

    def __init__(self, client: RedisClient, stages: Iterable[str], *, ttl_seconds: int) -> None:
        self.counters = {stage: AnswerCounters() for stage in stages}
        self._client = client
        self._ttl_seconds = ttl_seconds

    def get_many(self, stage: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None where there is none. One round trip."""

        def get_all(redis: Any) -> list[bytes | None]:
            pipeline = redis.pipeline(transaction=False)
            rest = iter(keys)
            while part := list(islice(rest, _AT_ONCE)):
                pipeline.mget([_name(stage, key) for key in part])
            return [value for values in pipeline.execute() for value in values]

        found = self._client.ask(get_all, failed=partial(self._failed, stage)) if keys else []
        return [None] * len(keys) if found is None else found

    def put_many(self, stage: str, values: Mapping[str, bytes]) -> None:
        """Keep the values, if it can. One round trip."""

        def set_all(redis: Any) -> None:
            pipeline = redis.pipeline(transaction=False)
            for key, value in values.items():
                pipeline.set(_name(stage, key), value, ex=self._ttl_seconds)
            pipeline.execute()

        if values:
            self._client.ask(set_all, failed=partial(self._failed, stage))

    def report(self, stage: str, *, hits: int, misses: int, damaged: int) -> None:
        """What came of what was looked up."""
        counters = self.counters[stage]
        counters.hits += hits
        counters.misses += misses
        counters.damaged += damaged

    def _failed(self, stage: str) -> None:
        self.counters[stage].errors += 1


def _name(stage: str, key: str) -> str:
    return f"{KEY_PREFIX}{stage}:{key}"
