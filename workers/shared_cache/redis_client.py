"""One process's connection to Redis (or Valkey). Away or slow means that nothing is found: never an error, and never a
wait for long.

The client is the synchronous one: it is called on the engine's own thread, where nothing else could run meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers import security
from workers.config import RedisSettings

__all__ = ["RedisClient"]

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

_TOO_SLOW: Final = 4
"""So many times ``redis.timeout_seconds``, which is for one wait, all waits of a call may take together."""


class RedisClient:
    """Calls Redis, and leaves it alone for ``redis.retry_seconds`` after a call that failed or took too long.

    The log has one warning when it goes away and one line when it is back.
    """

    def __init__(self, settings: RedisSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
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

    def ask(self, question: Callable[[Any], Reply], *, failed: Callable[[], None]) -> Reply | None:
        """What ``question`` makes of the redis-py client, or None while Redis is away. ``failed`` is called where Redis
        was tried and did not answer."""
        began = self._monotonic()
        if self._away_until is not None and began < self._away_until:
            return None
        try:
            reply = question(self._redis)
        except (redis.RedisError, OSError) as error:
            failed()
            self._leave_alone(str(error))
            return None
        seconds = self._monotonic() - began
        if seconds > _TOO_SLOW * self._settings.timeout_seconds:
            # Each wait was short enough, and together they were not.
            failed()
            self._leave_alone(f"it took {seconds:.1f} s to answer")
        elif self._away_until is not None:
            self._away_until = None
            log.info("Redis is back: it is used again", extra={"component": "cache"})
        return reply

    def _leave_alone(self, reason: str) -> None:
        if self._away_until is None:
            log.warning(
                "Redis is away: work goes on without what other workers and earlier ones know, slower, with the same "
                "results (%s); redis.url, or REDIS_URL, is %s; redis.enabled = false does without",
                reason,
                self._settings.url,
                extra={"component": "cache"},
            )
        self._away_until = self._monotonic() + self._settings.retry_seconds

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._pool.disconnect()
