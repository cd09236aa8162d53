"""Running workers: one stage, or several in one process with one set of engines.

    start:                   topics checked → pipeline loaded, on its owner's thread → consumer groups joined → ready
    stop (SIGTERM, SIGINT):  no new messages → what was begun is finished, within ``worker.shutdown_seconds``
                             → committed → groups left

After a crash the process leaves its groups first, and ends without committing anything that is not delivered. Whoever
started the process has to start it again. Either end has a bound: :mod:`workers.shutdown.ending`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from el4ner.errors import ConfigError, El4nerError
from workers.backoff import Backoff
from workers.config import StreamSettings
from workers.ensemble import combiner, members
from workers.join.agent import JoinAgent, World
from workers.join.aggregator import Aggregator
from workers.kafka import acls, topic_admin
from workers.kafka.size_limits import SizeLimits, shortage
from workers.kafka.stage_app import StageApp
from workers.kafka.value_frames import ValueFrames, registered_frames
from workers.messages.headers import PooledRandom
from workers.one_hop.pipeline_worker import PipelineWorker
from workers.pipeline_owner import OwnedPipeline, owned_pipeline
from workers.probes import serve_probes
from workers.roles import AGGREGATE, COMBINE, ENTITIES, PIPELINE, REDACT, ROLES
from workers.shutdown.ending import CLOSE_SECONDS, Ending
from workers.shutdown.signalled import run_until_signalled
from workers.shutdown.stopping import stop_workers
from workers.shutdown.watchdog import Watchdog
from workers.stages.stage_worker import StageWorker
from workers.stages.table import STAGE_TABLE, reading
from workers.telemetry.recorder import Telemetry
from workers.topics import OPTIONAL, topic_name

__all__ = ["WorkerCrashedError", "run_workers", "serve_workers"]

log = logging.getLogger(__name__)

_LONGEST_WAIT_SECONDS: Final = 30.0
_GARBAGE_THRESHOLD: Final = 20_000
"""The garbage collector looks for cycles after so many new objects: those of some batches. Python's default is 700."""

if TYPE_CHECKING:
    from workers.entities.entities_worker import EntitiesWorker
    from workers.redaction.redact_worker import RedactWorker

    Worker = StageWorker | JoinAgent | PipelineWorker | RedactWorker | EntitiesWorker


def _redaction(app: StageApp, world: World, telemetry: Telemetry) -> RedactWorker:
    # Not before it is needed: its patterns are compiled at the import, which no other worker has to wait for.
    from workers.redaction.redact_worker import RedactWorker

    return RedactWorker(app, world, telemetry)


def _entities(app: StageApp, world: World, telemetry: Telemetry) -> EntitiesWorker:
    from workers.entities.entities_worker import EntitiesWorker

    return EntitiesWorker(app, world, telemetry)


_WITHOUT_MODELS: Final[
    Mapping[str, Callable[[StageApp, World, Telemetry], JoinAgent | RedactWorker | EntitiesWorker]]
] = {
    AGGREGATE: Aggregator,
    COMBINE: combiner.build,
    REDACT: _redaction,
    ENTITIES: _entities,
}


class WorkerCrashedError(El4nerError):
    """A worker cannot go on after an error. Nothing undelivered was committed."""

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

    The caller configures logging (:func:`workers.telemetry.logs.configure_logging`).

    Args:
        settings: of the stream.
        stages: some of :data:`workers.roles.ROLES`, each once.
        ready: called once, when every stage has its partitions.
        watchdog: ends the process if something hangs while this ends (:mod:`workers.shutdown.watchdog`). It stays armed
            when this returns or raises, and bounds the program's own end too. None: one that is disarmed then.
        status_of: what the program's exit status will be, by what is raised here.

    Raises:
        ConfigError: there is no such stage, or members in different processes cannot do it.
        workers.topics.TopicError: no broker, or a topic is missing or wrong.
        WorkerCrashedError: a worker crashed.
        El4nerError: the pipeline cannot be loaded.
    """

    def on_ready() -> None:
        # What start-up left (a million objects, with the model libraries) stays for good. Unfrozen, the garbage
        # collector looks through it again and again: a third of a worker's time where no model is asked. What messages
        # leave is rarely a cycle.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE_THRESHOLD, *gc.get_threshold()[1:])
        if ready is not None:
            ready()

    run_until_signalled(
        lambda stop, ending: serve_workers(settings, stages, stop=stop, ready=on_ready, ending=ending),
        shutdown_seconds=settings.worker.shutdown_seconds,
        watchdog=watchdog,
        status_of=status_of,
    )


async def serve_workers(
    settings: StreamSettings,
    stages: Sequence[str],
    *,
    stop: asyncio.Event,
    ready: Callable[[], None] | None = None,
    ending: Ending | None = None,
) -> None:
    """As :func:`run_workers`, until ``stop`` is set; for use inside a running event loop.

    The process is the caller's: it is not ended if something hangs. ``ending`` is :func:`run_workers`'.
    """
    ending = Ending(settings.worker.shutdown_seconds) if ending is None else ending
    unknown = [stage for stage in stages if stage not in ROLES]
    if unknown or not stages or len(set(stages)) != len(stages):
        raise ConfigError(f"stages: expected some of {', '.join(ROLES)}, each once, not {list(stages)}")
    if PIPELINE in stages and len(stages) > 1:
        raise ConfigError(f"{PIPELINE} runs all stages and joins their answers: name it alone, not {list(stages)}")
    members.check(settings, stages)
    reports = await asyncio.to_thread(topic_admin.check, settings, stages)
    sizes = SizeLimits.of(settings.kafka, reports)
    if (too_small := shortage(settings, sizes)) is not None:
        log.warning("%s", too_small)
    if settings.kafka.security_protocol != "PLAINTEXT":
        there = {report.plan.name for report in reports if report.exists}
        optional = [topic for topic in OPTIONAL if topic_name(settings.kafka, topic) in there]
        await asyncio.to_thread(acls.check_rights, settings.kafka, stages, optional)
    workers: list[Worker] = []
    telemetry = Telemetry.of(settings, stages)
    async with serve_probes(settings.worker, workers, telemetry.metrics, ending):
        frames = await _frames(settings, stages, stop)
        if frames is None:
            ending.stop()
            ending.finished()
            return
        with owned_pipeline(settings, stages, close_seconds=ending.close_seconds) as pipeline:
            try:
                if pipeline is not None:
                    if not await pipeline.load(stop):
                        ending.stop()
                        ending.finished()
                        return
                    pipeline.observe(telemetry.metrics)
                async with _taught(settings, pipeline, telemetry, ending):
                    await _serve(settings, stages, pipeline, stop, ready, workers, telemetry, ending, sizes, frames)
            finally:
                await asyncio.to_thread(telemetry.spans.close, CLOSE_SECONDS)


async def _frames(settings: StreamSettings, stages: Sequence[str], stop: asyncio.Event) -> ValueFrames | None:
    """What values of results begin with; None: it is time to stop before the registry has said it."""
    backoff = Backoff(settings.worker.retry_seconds, _LONGEST_WAIT_SECONDS)
    registering = asyncio.ensure_future(registered_frames(settings.kafka, stages, backoff))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([registering, stopping], return_when=asyncio.FIRST_COMPLETED)
        return registering.result() if registering.done() else None
    finally:
        registering.cancel()
        stopping.cancel()


@contextlib.asynccontextmanager
async def _taught(
    settings: StreamSettings,
    pipeline: OwnedPipeline | None,
    telemetry: Telemetry,
    ending: Ending,
) -> AsyncIterator[None]:
    """The process's pools are taught, where it has any."""
    if pipeline is None or not settings.worker.follow_examples:
        yield
        return
    async with pipeline.taught(telemetry.metrics, close_seconds=ending.close_seconds):
        yield


async def _serve(
    settings: StreamSettings,
    stages: Sequence[str],
    pipeline: OwnedPipeline | None,
    stop: asyncio.Event,
    ready: Callable[[], None] | None,
    workers: list[Worker],
    telemetry: Telemetry,
    ending: Ending,
    sizes: SizeLimits,
    frames: ValueFrames,
) -> None:
    loop = asyncio.get_running_loop()
    crashed: asyncio.Future[BaseException] = loop.create_future()

    def set_crashed(reason: BaseException) -> None:
        if not crashed.done():
            crashed.set_result(reason)

    def fatal(reason: BaseException) -> None:
        # Not on the loop, which may stand still. From now on the worker does not live, and has no partitions.
        ending.crash(reason)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_crashed, reason)

    workers += [_build(stage, settings, pipeline, fatal, telemetry, sizes, frames) for stage in stages]
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
    pipeline: OwnedPipeline | None,
    fatal: Callable[[BaseException], None],
    telemetry: Telemetry,
    sizes: SizeLimits,
    frames: ValueFrames,
) -> Worker:
    group = members.group_of(stage, settings)
    app = StageApp(stage, settings, fatal=fatal, group=group, limits=sizes, frames=frames)
    worker: Worker
    random = PooledRandom()
    world = World(_now_ms, _monotonic_ms, random)
    if stage in _WITHOUT_MODELS:
        worker = _WITHOUT_MODELS[stage](app, world, telemetry)
    elif pipeline is None:
        raise RuntimeError("a stage that needs engines was built without them")
    elif stage == PIPELINE:
        worker = PipelineWorker(app, pipeline.owner, world, telemetry, pipeline.pools)
    else:
        part = members.part_of(reading(STAGE_TABLE[stage], settings.kafka), settings)
        worker = StageWorker(
            app, part, pipeline.owner, clock_ms=_now_ms, random=random, telemetry=telemetry, pools=pipeline.pools
        )
    app.consumer.drain = worker.drain
    return worker


async def _start(workers: Sequence[Worker], ready: Callable[[], None] | None) -> None:
    await asyncio.gather(*(worker.app.start() for worker in workers))
    await asyncio.gather(*(worker.app.ready.wait() for worker in workers))
    log.info("ready", extra={"stages": [worker.app.stage for worker in workers]})
    if ready is not None:
        ready()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
