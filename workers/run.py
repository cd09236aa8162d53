"""Running workers: one stage, or several in one process with one set of engines.

Start: topics checked → pipeline loaded (on the thread that owns it) → consumer groups joined → ready. Stop, on SIGTERM
or SIGINT: no new messages → what was begun is finished, within ``worker.shutdown_seconds`` → committed → groups left. A
crash leaves the groups first, and ends the process without committing anything that is not delivered; restarting it is
the business of whoever started it. Either end has a bound: :mod:`workers.shutdown.ending`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from el4ner.errors import ConfigError, El4nerError
from el4ner.participation import STAGES
from workers.config import StreamSettings
from workers.ensemble import combiner, members
from workers.ensemble.combiner import CombineWorker
from workers.join.aggregator import Aggregator
from workers.kafka import acls, topic_admin
from workers.kafka.size_limits import SizeLimits, shortage
from workers.kafka.stage_app import StageApp
from workers.redis_cache import RedisRetrievalCache
from workers.roles import AGGREGATE, COMBINE, ROLES
from workers.shutdown.end_signals import EndSignals
from workers.shutdown.ending import CLOSE_SECONDS, Ending
from workers.shutdown.stopping import stop_workers
from workers.shutdown.watchdog import Watchdog
from workers.stages.stage_worker import Owner, StageWorker
from workers.stages.table import STAGE_TABLE
from workers.telemetry.health import Health, StageHealth, observe_stages
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry

__all__ = ["WorkerCrashedError", "run_workers", "serve_workers"]

log = logging.getLogger(__name__)

_GARBAGE: Final = 20_000
"""New objects between two looks for cycles among them: those of some batches. Python's default is 700."""

_JOINS: Final[Mapping[str, Callable[..., Aggregator | CombineWorker]]] = {
    AGGREGATE: Aggregator,
    COMBINE: combiner.build,
}

Worker = StageWorker | Aggregator | CombineWorker


class WorkerCrashedError(El4nerError):
    """A worker met something that it cannot go on from; nothing undelivered was committed."""

    code = "worker-crashed"


def run_workers(
    settings: StreamSettings,
    stages: Sequence[str],
    *,
    ready: Callable[[], None] | None = None,
    watchdog: Watchdog | None = None,
    status_of: Callable[[BaseException], int] = lambda _: 1,
) -> None:
    """Run the stages in this process until SIGTERM or SIGINT; then drain, and return. From the main thread.

    ``ready`` is called once, when every stage has its partitions. Logging is the caller's
    (:func:`workers.telemetry.logs.configure_logging`).

    What hangs while this ends is ended, and the process with it (:mod:`workers.shutdown.watchdog`). Whoever gives a
    ``watchdog`` has its program's own end bounded too: it stays armed when this returns or raises. ``status_of``: what
    the program's exit status will be, by what is raised here.

    Raises:
        ConfigError: there is no such stage, or members cannot do it apart.
        workers.topics.TopicError: no broker, or a topic is missing or wrong.
        WorkerCrashedError: a worker crashed.
        El4nerError: the pipeline cannot be loaded.
    """
    dog = Watchdog() if watchdog is None else watchdog
    ending = Ending(settings.worker.shutdown_seconds, watchdog=dog, status_of=status_of)
    try:
        asyncio.run(_until_signalled(settings, stages, ready, ending))
    finally:
        if watchdog is None:
            dog.disarm()


async def serve_workers(
    settings: StreamSettings,
    stages: Sequence[str],
    *,
    stop: asyncio.Event,
    ready: Callable[[], None] | None = None,
    ending: Ending | None = None,
) -> None:
    """As :func:`run_workers`, until ``stop`` is set; for use inside a running event loop.

    The process is the caller's: what hangs at the end does not end it. ``ending`` is :func:`run_workers`'.
    """
    ending = Ending(settings.worker.shutdown_seconds) if ending is None else ending
    unknown = [stage for stage in stages if stage not in ROLES]
    if unknown or not stages or len(set(stages)) != len(stages):
        raise ConfigError(f"stages: expected some of {', '.join(ROLES)}, each once, not {list(stages)}")
    members.check(settings, stages)
    reports = await asyncio.to_thread(topic_admin.check, settings)
    sizes = SizeLimits.of(settings.kafka, reports)
    if (too_small := shortage(settings, sizes)) is not None:
        log.warning("%s", too_small)
    if settings.kafka.security_protocol != "PLAINTEXT":
        await asyncio.to_thread(acls.check_rights, settings.kafka, stages)
    workers: list[Worker] = []
    telemetry = Telemetry.of(settings, stages)
    async with _web(settings, workers, telemetry, ending):
        with _engines(settings, stages) as (owner, cache):
            try:
                if owner is not None:
                    started = time.monotonic()
                    # The first call's result is that of loading.
                    loading = asyncio.wrap_future(owner.submit_within(0, lambda _: None))
                    if not await _unless_stopped(loading, stop):
                        ending.stop()
                        ending.finished()
                        return
                    log.info("pipeline loaded", extra={"seconds": round(time.monotonic() - started, 2)})
                _observe(telemetry.metrics, owner, cache, workers)
                await _serve(settings, stages, owner, stop, ready, workers, telemetry, ending, sizes)
            finally:
                await asyncio.to_thread(telemetry.spans.close, CLOSE_SECONDS)
                if cache is not None:
                    log.info("retrieval cache", extra={"hits": cache.counters.hits, "misses": cache.counters.misses})


@contextlib.asynccontextmanager
async def _web(
    settings: StreamSettings, workers: Sequence[Worker], telemetry: Telemetry, ending: Ending
) -> AsyncIterator[None]:
    """Probes and metrics, from before the models are loaded."""
    worker = settings.worker
    if worker.web_port is None:
        yield
        return
    # Not before it is needed: aiohttp's server takes 0.3 s.
    from workers.telemetry.web import HealthServer

    def report() -> list[StageHealth]:
        return [_health(one) for one in workers]

    observe_stages(telemetry.metrics, report)
    health = Health(
        report,
        stall_seconds=worker.stall_seconds,
        batch_deadline_seconds=worker.batch_deadline_seconds,
        given_up=ending.problem,
    )
    server = HealthServer(worker.web_host, worker.web_port, health, exposition=telemetry.metrics.exposition)
    await server.start()
    log.info("health on port %d", server.port, extra={"port": server.port})
    try:
        yield
    finally:
        await server.stop()


async def _unless_stopped(loading: asyncio.Future[None], stop: asyncio.Event) -> bool:
    """False: ``stop`` came first, and nobody needs what is loaded. Raises what loading raises."""
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    ends: list[asyncio.Future[Any]] = [loading, stopping]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not loading.done():
        loading.cancel()
        return False
    loading.result()
    return True


def _observe(
    metrics: Metrics,
    owner: Owner | None,
    cache: RedisRetrievalCache | None,
    workers: Sequence[Worker],
) -> None:
    """What is asked for when somebody scrapes."""
    if owner is not None:
        metrics.observe("el4ner_engine_waiting_calls", lambda: owner.waiting)
    if cache is not None:
        counters = cache.counters
        metrics.observe("el4ner_cache_lookups_total", lambda: {("hit",): counters.hits, ("miss",): counters.misses})
        metrics.observe("el4ner_cache_errors_total", lambda: counters.errors)
    metrics.observe(
        "el4ner_consumer_lag_messages",
        lambda: {
            (worker.app.stage, topic, str(partition)): lag
            for worker in workers
            for (topic, partition), lag in worker.app.lags.items()
        },
    )


class _Logged:
    """Tells in the log what takes long before a worker is ready: converting weights, reading a pool."""

    def start(self, label: str, total: int) -> None:
        """See :class:`~el4ner.models.progress.Progress`."""
        log.info(label, extra={"total": total})

    def advance(self, steps: int) -> None:
        """See :class:`~el4ner.models.progress.Progress`."""

    def done(self) -> None:
        """See :class:`~el4ner.models.progress.Progress`."""


@contextlib.contextmanager
def _engines(
    settings: StreamSettings, stages: Sequence[str]
) -> Iterator[tuple[Owner | None, RedisRetrievalCache | None]]:
    """The one thread that loads the pipeline and calls it. Nothing where no stage of the method runs."""
    if not any(stage in STAGES for stage in stages):
        yield None, None
        return
    # Not before it is needed: it takes torch along, which the aggregator's process can do without.
    from el4ner.engines.owner import OwnedEngine
    from el4ner.loader import load_members, load_pipeline

    cache = RedisRetrievalCache(settings.redis) if settings.redis.enabled and "extract" in stages else None
    # What an owner asks of an engine (that one thread calls it, and closes it) is what a pipeline asks of its own.
    own = members.hosted(settings) if members.split_stages(settings, stages) else None
    load = load_pipeline if own is None else partial(load_members, members=own)
    owner = OwnedEngine[Any](
        lambda: load(settings, cache=cache, progress=_Logged(), stages=[stage for stage in STAGES if stage in stages]),
        capacity=len(stages) * settings.worker.batches_in_flight,
        name="pipeline",
    )
    try:
        yield owner, cache
    finally:
        # The drain has waited for the running call as long as it may. Engines that can be interrupted are; a call that
        # stays in its model ends with the process.
        closing = threading.Thread(target=owner.close, kwargs={"cancel": True}, name="pipeline-close", daemon=True)
        closing.start()
        closing.join(timeout=min(CLOSE_SECONDS, settings.worker.shutdown_seconds))
        if cache is not None:
            cache.close()


async def _until_signalled(
    settings: StreamSettings, stages: Sequence[str], ready: Callable[[], None] | None, ending: Ending
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ending.watch(loop)

    def heard(number: int) -> None:
        # First what needs no loop: it may be the loop that stands still.
        ending.signal(number)
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(stop.set)

    def settled() -> None:
        # What start-up left (a million objects, with the model libraries) stays for good. Unfrozen it is looked through
        # again and again: a third of a worker's time where no model is asked. What messages leave is rarely a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])
        if ready is not None:
            ready()

    with EndSignals(heard):
        try:
            await serve_workers(settings, stages, stop=stop, ready=settled, ending=ending)
        except BaseException as error:
            ending.fail(error)
            raise


async def _serve(
    settings: StreamSettings,
    stages: Sequence[str],
    owner: Owner | None,
    stop: asyncio.Event,
    ready: Callable[[], None] | None,
    workers: list[Worker],
    telemetry: Telemetry,
    ending: Ending,
    sizes: SizeLimits,
) -> None:
    loop = asyncio.get_running_loop()
    crashed: asyncio.Future[BaseException] = loop.create_future()

    def note(reason: BaseException) -> None:
        if not crashed.done():
            crashed.set_result(reason)

    def fatal(reason: BaseException) -> None:
        # Here and not on the loop, which may stand still: from now on the worker does not live, and has no partitions.
        ending.crash(reason)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(note, reason)

    workers += [_build(stage, settings, owner, fatal, telemetry, sizes) for stage in stages]
    ending.members([worker.app.leave for worker in workers])
    for worker in workers:
        ending.watch(worker.app.consumer_loop)
    starting: asyncio.Future[Any] = asyncio.ensure_future(_start(workers, ready))
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    ends: list[asyncio.Future[Any]] = [stopping, crashed]
    try:
        await asyncio.wait([*ends, starting], return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not starting.cancelled():
            # Raises what start-up raised.
            starting.result()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    except Exception as error:
        ending.crash(error)
        raise
    finally:
        for task in (starting, stopping):
            task.cancel()
        if ending.crashed_by is None:
            ending.stop()
        await stop_workers(workers, ending, crashed)
    if (reason := ending.crashed_by) is not None:
        raise WorkerCrashedError(f"a worker crashed: {type(reason).__name__}: {reason}") from reason


def _build(
    stage: str,
    settings: StreamSettings,
    owner: Owner | None,
    fatal: Callable[[BaseException], None],
    telemetry: Telemetry,
    sizes: SizeLimits,
) -> Worker:
    app = StageApp(
        stage,
        settings,
        fatal=fatal,
        group=members.group_of(stage, settings),
        limits=sizes,
    )
    worker: Worker
    if stage in _JOINS:
        worker = _JOINS[stage](
            app, clock_ms=_now_ms, monotonic_ms=_monotonic_ms, random=os.urandom, telemetry=telemetry
        )
    else:
        if owner is None:
            raise RuntimeError("a stage that needs engines was built without them")
        part = members.part_of(STAGE_TABLE[stage], settings)
        worker = StageWorker(app, part, owner, clock_ms=_now_ms, random=os.urandom, telemetry=telemetry)
    app.consumer.drain = worker.drain
    return worker


async def _start(workers: Sequence[Worker], ready: Callable[[], None] | None) -> None:
    await asyncio.gather(*(worker.app.start() for worker in workers))
    await asyncio.gather(*(worker.app.ready.wait() for worker in workers))
    log.info("ready", extra={"stages": [worker.app.stage for worker in workers]})
    if ready is not None:
        ready()


def _health(worker: Worker) -> StageHealth:
    app = worker.app
    return StageHealth(
        stage=app.stage,
        ready=app.ready.is_set(),
        stopping=app.stopping,
        stuck_seconds=app.positions.stuck_seconds,
        batch_seconds=worker.batch_seconds,
        in_flight=app.positions.in_flight,
        lag=app.lag,
        documents=worker.documents,
        failures=worker.failures,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
