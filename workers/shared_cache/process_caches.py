"""What a process shares with others by Redis, as its settings say, and what is known of that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from el4ner.participation import shows_demonstrations
from workers.config import StreamSettings
from workers.shared_cache.answer_store import RedisAnswerStore
from workers.shared_cache.redis_client import RedisClient
from workers.shared_cache.retrieval_cache import RedisRetrievalCache
from workers.telemetry.metrics import Metrics

__all__ = ["ProcessCaches", "process_caches"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessCaches:
    """``retrieval``: None where this process retrieves nothing; ``answers``: None where it shares none."""

    retrieval: RedisRetrievalCache | None = None
    answers: RedisAnswerStore | None = None

    def observe(self, metrics: Metrics) -> None:
        """Have the counters read when somebody scrapes."""
        if (cache := self.retrieval) is not None:
            counters = cache.counters
            metrics.observe("el4ner_cache_lookups_total", lambda: {("hit",): counters.hits, ("miss",): counters.misses})
        if (store := self.answers) is not None:
            by_stage = store.counters
            metrics.observe(
                "el4ner_shared_answers_total",
                lambda: {
                    (stage, outcome): count
                    for stage, counts in by_stage.items()
                    for outcome, count in (("hit", counts.hits), ("miss", counts.misses))
                },
            )
            metrics.observe(
                "el4ner_shared_answers_damaged_total",
                lambda: {(stage,): counts.damaged for stage, counts in by_stage.items()},
            )
        if self.retrieval is not None or self.answers is not None:
            metrics.observe("el4ner_cache_errors_total", lambda: {(stage,): n for stage, n in self._errors().items()})

    def log_counts(self) -> None:
        """What came of it, when the process ends."""
        if self.retrieval is not None:
            counters = self.retrieval.counters
            log.info("retrieval cache", extra={"hits": counters.hits, "misses": counters.misses})
        if self.answers is not None:
            for stage, counts in self.answers.counters.items():
                log.info("shared answers", extra={"stage": stage, "hits": counts.hits, "misses": counts.misses})

    def _errors(self) -> dict[str, int]:
        """By stage. Retrieval is extract's."""
        errors = (
            {} if self.answers is None else {stage: counts.errors for stage, counts in self.answers.counters.items()}
        )
        if self.retrieval is not None:
            errors["extract"] = errors.get("extract", 0) + self.retrieval.counters.errors
        return errors


@contextlib.contextmanager
def process_caches(settings: StreamSettings, stages: Collection[str]) -> Iterator[ProcessCaches]:
    """Of a process that asks the pipeline for these stages; closed at the end of the block."""
    redis, method = settings.redis, settings.method
    retrieves = (
        "extract" in stages and shows_demonstrations(settings) and settings.retrieval.kind in ("span", "sentence")
    )
    # Without validation there is nothing to share of its stage.
    shared = [stage for stage in stages if stage != "validate" or method.validation_kind != "off"]
    shares = redis.share_answers and method.repeats != "off" and bool(shared)
    if not redis.enabled or not (retrieves or shares):
        yield ProcessCaches()
        return
    client = RedisClient(redis)
    try:
        yield ProcessCaches(
            RedisRetrievalCache(client, ttl_seconds=redis.ttl_seconds) if retrieves else None,
            RedisAnswerStore(client, shared, ttl_seconds=redis.answer_ttl_seconds) if shares else None,
        )
    finally:
        client.close()
