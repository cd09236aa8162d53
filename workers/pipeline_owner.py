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
from typing import TYPE_CHECKING, Any

from workers.config import StreamSettings
from workers.ensemble import members
from workers.roles import stages_of
from workers.shared_cache.process_caches import ProcessCaches, process_caches
from workers.stages.engine_calls import Owner
from workers.telemetry.metrics import Metrics
from workers.telemetry.mixes import observe_mixes
from workers.telemetry.start_progress import StartProgress

if TYPE_CHECKING:
    # At run time it takes numpy along, which the aggregator's process can do without.
    from el4ner.evidence.stream_mix import StreamMix

__all__ = ["OwnedPipeline", "owned_pipeline"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnedPipeline:
    """The owner of the pipeline, and what the pipeline shares with those of other processes."""

    owner: Owner
    caches: ProcessCaches
    settings: StreamSettings
    _loaded: list[Any] = field(default_factory=list)
    """The pipeline, once it is loaded: for what any thread may ask."""

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
        log.info("pipeline loaded", extra={"seconds": round(time.monotonic() - began, 2)})
        return True

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
        """Have the engine's queue, which pools are read, the streams' mixes and the caches' counters read when somebody
        scrapes."""
        metrics.observe("el4ner_engine_waiting_calls", lambda: self.owner.waiting)
        observe_mixes(metrics, self._mixes)
        metrics.observe("el4ner_pool_ready", self._pools_ready)
        self.caches.observe(metrics)

    def _mixes(self) -> Mapping[str, StreamMix]:
        """Of the pools that are read so far."""
        return {name: mix for pipeline in self._loaded for name, mix in pipeline.mixes.items()}

    def _pools_ready(self) -> dict[tuple[str, ...], float]:
        return {(name,): name not in pipeline.unread_pools for pipeline in self._loaded for name in pipeline.pools}


@contextlib.contextmanager
def owned_pipeline(
    settings: StreamSettings, stages: Sequence[str], *, close_seconds: float
) -> Iterator[OwnedPipeline | None]:
    """The pipeline of these stages, which begins to be loaded; None where no stage asks a pipeline.

    ``close_seconds``: how long closing it may take.
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
        owner = OwnedEngine[Any](
            lambda: load(
                settings,
                cache=caches.retrieval,
                answers=caches.answers,
                progress=StartProgress(time.monotonic),
                stages=asked,
                at_first_use=True,
            ),
            # And for whoever teaches the pools, and estimates anew what that changes.
            capacity=len(asked) * settings.worker.batches_in_flight + 2,
            name="pipeline",
        )
        try:
            yield OwnedPipeline(owner, caches, settings)
        finally:
            caches.log_counts()
            # The drain has waited for the running call as long as it may. Engines that can be interrupted are; a call
            # that stays in its model ends with the process.
            closing = threading.Thread(target=owner.close, kwargs={"cancel": True}, name="pipeline-close", daemon=True)
            closing.start()
            closing.join(timeout=close_seconds)
