"""The one thread that loads the pipeline and calls it, for all stages of a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from workers.backoff import Backoff
from workers.config import StreamSettings
from workers.ensemble import members
from workers.roles import stages_of
from workers.shared_cache.process_caches import ProcessCaches, process_caches
from workers.stages.unread_pools import UnreadPools
from workers.telemetry.metrics import Metrics
from workers.telemetry.mixes import observe_mixes
from workers.telemetry.start_progress import StartProgress

if TYPE_CHECKING:
    # At run time it takes numpy along, which the aggregator's process can do without.
    from el4ner.evidence.stream_mix import StreamMix
    from workers.stages.pool_reader import PoolReader, ReadingOwner

__all__ = ["OwnedPipeline", "owned_pipeline"]

log = logging.getLogger(__name__)

_MOST_RETRY_SECONDS: Final = 30.0
_JOIN_SECONDS: Final = 1.0
"""For who reads pools, where nothing is read any more."""
_POOLS: Final = "pools"
"""What metrics have in the place of a stage where a pool is read."""


@dataclass(frozen=True)
class OwnedPipeline:
    """The owner of the pipeline, and what the pipeline shares with those of other processes."""

    owner: ReadingOwner
    caches: ProcessCaches
    settings: StreamSettings
    progress: StartProgress
    pool_retries: int | None
    _loaded: list[Any] = field(default_factory=list)
    """The pipeline, once it is loaded: for what any thread may ask."""
    _readers: list[PoolReader] = field(default_factory=list)
    """Who reads its pools, once it is loaded."""

    @property
    def pools(self) -> UnreadPools:
        """Those that have yet to be read. The pipeline is loaded."""
        return self._readers[0]

    async def load(self, stop: asyncio.Event) -> bool:
        """Wait until the pipeline is loaded. False: ``stop`` came first, and nobody needs it.

        Raises:
            El4nerError: it cannot be loaded.
        """
        began = time.monotonic()
        # The first call fails where loading does.
        loading = asyncio.wrap_future(self.owner.submit_within(0, lambda pipeline: pipeline))
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        ends: list[asyncio.Future[Any]] = [loading, stopping]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return False
        self._loaded.append(loading.result())
        self._readers.append(self._reader(self._loaded[0]))
        log.info("pipeline loaded", extra={"seconds": round(time.monotonic() - began, 2)})
        return True

    def _reader(self, pipeline: Any) -> PoolReader:
        # Not before it is needed, as the pipeline itself.
        from workers.stages.pool_reader import PoolReader

        worker, pools = self.settings.worker, self.settings.pools
        reader = PoolReader(
            self.owner,
            pipeline,
            ahead=list(dict.fromkeys([pools.default, *pools.paths])) if worker.read_ahead else (),
            retries=self.pool_retries,
            backoff=Backoff(worker.retry_seconds, _MOST_RETRY_SECONDS),
            progress=self.progress,
        )
        reader.start()
        return reader

    def stop_reading(self) -> None:
        """No further slice of a pool is read."""
        for reader in self._readers:
            reader.stop()

    def join_reading(self, seconds: float) -> None:
        """Wait for who reads pools, when the owner is closed."""
        for reader in self._readers:
            reader.join(seconds)

    @contextlib.asynccontextmanager
    async def taught(self, metrics: Metrics, *, close_seconds: float) -> AsyncIterator[None]:
        """Pools are taught what the topic has: all that it has so far when this begins, and what comes until the end
        of the block. The pipeline is loaded.

        Raises:
            TopicError: the topic cannot be read.
            El4nerError: a pool cannot be taught.
        """
        # Not before it is needed, as the pipeline itself.
        from workers.teaching.pool_follower import PoolFollower

        follower = PoolFollower(self.settings.kafka, self.owner, self._loaded[0].teaching)
        began = time.monotonic()
        try:
            await asyncio.to_thread(follower.start)
            follower.observe(metrics)
            log.info("the pools' examples are read", extra={"seconds": round(time.monotonic() - began, 2)})
            yield
        finally:
            await asyncio.to_thread(follower.close, close_seconds)

    def observe(self, metrics: Metrics) -> None:
        """Have the engine's queue, which pools are read, the streams' mixes, what repeats and the caches' counters read
        when somebody scrapes."""
        metrics.observe("el4ner_engine_waiting_calls", lambda: self.owner.waiting)
        observe_mixes(metrics, self._mixes)
        metrics.observe("el4ner_pool_ready", self._pools_ready)
        metrics.observe("el4ner_pool_read_ratio", self._pools_read)
        for reader in self._readers:
            reader.retried = lambda code: metrics.retried(_POOLS, code)
        metrics.observe("el4ner_repeats_total", self._repeats)
        self.caches.observe(metrics)

    def _mixes(self) -> Mapping[str, StreamMix]:
        """Of the pools that are read so far."""
        return {name: mix for pipeline in self._loaded for name, mix in pipeline.mixes.items()}

    def _repeats(self) -> dict[tuple[str, ...], float]:
        """Of the stages that were asked about anything."""
        return {
            (stage, outcome): count
            for pipeline in self._loaded
            for stage, counts in pipeline.repeats.items()
            if counts.hits or counts.misses
            for outcome, count in (("hit", counts.hits), ("miss", counts.misses))
        }

    def _pools_ready(self) -> dict[tuple[str, ...], float]:
        return {(name,): name not in pipeline.unread_pools for pipeline in self._loaded for name in pipeline.pools}

    def _pools_read(self) -> dict[tuple[str, ...], float]:
        return {(name,): ratio for reader in self._readers for name, ratio in reader.ratios.items()}


@contextlib.contextmanager
def owned_pipeline(
    settings: StreamSettings, stages: Sequence[str], *, close_seconds: float, pool_retries: int | None = None
) -> Iterator[OwnedPipeline | None]:
    """The pipeline of these stages, which begins to be loaded; None where no stage asks a pipeline.

    ``close_seconds``: how long closing it may take. ``pool_retries``: how often a pool that cannot be read is tried
    again before whoever needs it hears of it; None: for as long as it takes, since documents can wait.
    """
    asked = stages_of(stages)
    if not asked:
        yield None
        return
    # Not before it is needed: it takes torch along, which the aggregator's process can do without.
    from el4ner.engines.owner import OwnedEngine
    from el4ner.loader import load_members, load_pipeline

    hosted = members.hosted_members(settings) if members.split_stages(settings, stages) else None
    load = load_pipeline if hosted is None else partial(load_members, members=hosted)
    with process_caches(settings, asked) as caches:
        # OwnedEngine works for a pipeline too: one thread calls it and closes it.
        progress = StartProgress(time.monotonic)
        owner = OwnedEngine[Any](
            lambda: load(
                settings,
                cache=caches.retrieval,
                answers=caches.answers,
                progress=progress,
                stages=asked,
                at_first_use=True,
            ),
            # And for whoever reads pools, teaches them, and estimates anew what that changes.
            capacity=len(asked) * settings.worker.batches_in_flight + 3,
            name="pipeline",
        )
        owned = OwnedPipeline(owner, caches, settings, progress, pool_retries)
        try:
            yield owned
        finally:
            owned.stop_reading()
            caches.log_counts()
            # The drain has waited for the running call as long as it may. Engines that can be interrupted are; a call
            # that stays in its model ends with the process.
            closing = threading.Thread(target=owner.close, kwargs={"cancel": True}, name="pipeline-close", daemon=True)
            closing.start()
            closing.join(timeout=close_seconds)
            if not closing.is_alive():
                owned.join_reading(_JOIN_SECONDS)
