"""The process of ``el4ner serve``.

    start:                   it listens, and answers probes → the pipeline is loaded, on its owner's thread → ready
    stop (SIGTERM, SIGINT):  not ready, and nothing new is accepted → what was accepted is answered, within
                             ``worker.shutdown_seconds`` → connections closed

After a crash (an engine that hangs, or fails again and again) the process ends; whoever started it has to start it
again. Either end has a bound: :mod:`workers.shutdown.ending`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from el4ner.errors import El4nerError
from workers.config import StreamSettings
from workers.ensemble import members
from workers.http.connections import HttpServer, listening_socket
from workers.one_hop.tagging import TaggingTelemetry
from workers.pipeline_owner import OwnedPipeline, owned_pipeline
from workers.roles import PIPELINE
from workers.security import bearer_token
from workers.serve.http_app import ServiceState, http_app
from workers.serve.pipeline_calls import SERVE, PipelineCalls
from workers.serve.tag_answers import Tagged
from workers.serve.tag_requests import TextToTag
from workers.serve.text_queue import TextQueue
from workers.shutdown.ending import CLOSE_SECONDS, Ending
from workers.shutdown.signalled import run_until_signalled
from workers.shutdown.watchdog import Watchdog
from workers.stages.engine_calls import EngineHungError
from workers.stages.unread_pools import ALL_READ, UnreadPools
from workers.telemetry.health import Health, StageHealth, observe_stages
from workers.telemetry.recorder import Telemetry

__all__ = ["ServiceCrashedError", "run_service", "serve_texts"]

log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 0.5


class ServiceCrashedError(El4nerError):
    """The service cannot go on after an error."""

    code = "service-crashed"


def run_service(
    settings: StreamSettings,
    *,
    ready: Callable[[int], None] | None = None,
    watchdog: Watchdog | None = None,
    status_of: Callable[[BaseException], int] = lambda _: 1,
) -> None:
    """Serve in this process until SIGTERM or SIGINT; then answer what was accepted, and return. From the main thread.

    The caller configures logging (:func:`workers.telemetry.logs.configure_logging`).

    Args:
        settings: of the stream; nothing of ``[kafka]`` is used, unless ``serve.follow_examples``.
        ready: called once with the port, when requests are accepted.
        watchdog: as :func:`workers.run.run_workers` takes it.
        status_of: what the program's exit status will be, by what is raised here.

    Raises:
        ConfigError: the settings do not do for it, or the address cannot be listened on.
        ServiceCrashedError: it cannot go on.
        El4nerError: the pipeline cannot be loaded.
    """

    def on_ready(port: int) -> None:
        # As a worker does: what start-up left stays, and is not looked through again and again (workers.run).
        gc.collect()
        gc.freeze()
        if ready is not None:
            ready(port)

    run_until_signalled(
        lambda stop, ending: serve_texts(settings, stop=stop, ready=on_ready, ending=ending),
        shutdown_seconds=settings.worker.shutdown_seconds,
        watchdog=watchdog,
        status_of=status_of,
    )


async def serve_texts(
    settings: StreamSettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[int], None] | None = None,
    ending: Ending | None = None,
) -> None:
    """As :func:`run_service`, until ``stop`` is set; for use inside a running event loop.

    The process is the caller's: it is not ended if something hangs. ``ending`` is :func:`run_service`'s.
    """
    ending = Ending(settings.worker.shutdown_seconds) if ending is None else ending
    members.check(settings, [PIPELINE])
    token = bearer_token(settings.serve.token, settings.serve.token_file, "serve.token")
    service = _Service(settings, ending, token, stop)
    listening = listening_socket(settings.serve)
    port = int(listening.getsockname()[1])
    server = HttpServer(http_app(service.state), settings.serve, close_seconds=ending.close_seconds)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    log.info("listening", extra={"host": settings.serve.host, "port": port})
    try:
        with owned_pipeline(
            settings, [PIPELINE], close_seconds=ending.close_seconds, pool_retries=settings.worker.retries
        ) as pipeline:
            assert pipeline is not None
            try:
                await service.run(pipeline, serving, None if ready is None else lambda: ready(port))
            finally:
                # Before the pipeline is closed, which may hold the loop up: the last answers are on their way.
                server.should_exit = True
                await asyncio.wait([serving])
    finally:
        server.should_exit = True
        with contextlib.suppress(Exception):
            await serving
        listening.close()
        await asyncio.to_thread(service.state.telemetry.spans.close, CLOSE_SECONDS)
    if (reason := ending.crashed_by) is not None:
        raise ServiceCrashedError(f"the service cannot go on: {type(reason).__name__}: {reason}") from reason


class _Service:
    def __init__(self, settings: StreamSettings, ending: Ending, token: str | None, stop: asyncio.Event) -> None:
        self._settings = settings
        self._ending = ending
        self._stop = stop
        self._stopping = threading.Event()
        self._calls: PipelineCalls | None = None
        self._pools: UnreadPools = ALL_READ
        telemetry = Telemetry.of(settings, ())
        worker = settings.worker
        self.state = ServiceState(
            settings.serve,
            pool_names=tuple(settings.pools.paths),
            default_pool=settings.pools.default,
            telemetry=telemetry,
            health=Health(
                self._report,
                stall_seconds=worker.stall_seconds,
                batch_deadline_seconds=worker.batch_deadline_seconds,
                given_up=ending.problem,
            ),
            token=token,
            entity_ids=settings.entities.enabled,
        )
        observe_stages(telemetry.metrics, self._report)

    async def run(self, pipeline: OwnedPipeline, serving: asyncio.Task[None], ready: Callable[[], None] | None) -> None:
        """Until ``stop``, or a crash."""
        if not await pipeline.load(self._stop):
            self.state.stop()
            self._ending.stop()
            self._ending.finished()
            return
        async with contextlib.AsyncExitStack() as stack:
            if self._settings.serve.follow_examples:
                taught = pipeline.taught(self.state.telemetry.metrics, close_seconds=self._ending.close_seconds)
                await stack.enter_async_context(taught)
            await self._serve(pipeline, serving, ready)

    async def _serve(
        self, pipeline: OwnedPipeline, serving: asyncio.Task[None], ready: Callable[[], None] | None
    ) -> None:
        queue = await self._open(pipeline)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(queue.run()),
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._stop.wait()),
        ]
        log.info("ready", extra={"stages": [SERVE]})
        if ready is not None:
            ready()
        try:
            ended, _ = await asyncio.wait([*tasks, serving], return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                if not task.cancelled() and (error := task.exception()) is not None:
                    self._crash(error)
            self.state.stop()
            if self._ending.crashed_by is None:
                self._ending.stop()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._ending.shutdown_seconds):
                        await queue.drained()
            self._stopping.set()
            queue.stop()
            # The answers are written by those who wait for them.
            await asyncio.sleep(0)
            self._ending.finished()
        finally:
            for task in tasks:
                task.cancel()

    async def _open(self, pipeline: OwnedPipeline) -> TextQueue:
        telemetry, worker, owner = self.state.telemetry, self._settings.worker, pipeline.owner
        pipeline.observe(telemetry.metrics)
        recorder = TaggingTelemetry(telemetry, SERVE, clock_ms=_now_ms, random=os.urandom)
        calls = PipelineCalls(self._settings.method, worker, recorder, self._stopping)

        def ask(texts: Sequence[TextToTag]) -> Future[list[Tagged]]:
            # There is room: no more batches are at the engine than its queue takes.
            return owner.submit_within(0, calls.results, texts)

        self.state.pools = await asyncio.wrap_future(owner.submit_within(0, lambda loaded: loaded.pools))
        self._calls, self._pools = calls, pipeline.pools
        self.state.queue = TextQueue(
            self._settings.serve,
            worker,
            ask,
            pools=pipeline.pools,
            default_pool=self._settings.pools.default,
            fatal=self._crash,
            clock=time.monotonic,
        )
        return self.state.queue

    async def _watch(self) -> None:
        """End the service when an engine hangs: a thread cannot be ended, a process can."""
        deadline = self._settings.worker.batch_deadline_seconds
        while self._calls is not None:
            await asyncio.sleep(_WATCH_SECONDS)
            seconds = self._engine_seconds()
            if seconds is not None and seconds > deadline:
                raise EngineHungError(f"{SERVE}: an engine has not answered for {seconds:.0f} s")

    def _engine_seconds(self) -> float | None:
        """For how long the engine has worked on the current part of a call, or read the current part of a pool."""
        calls = None if self._calls is None else self._calls.seconds
        return max((each for each in (calls, self._pools.slice_seconds) if each is not None), default=None)

    def _crash(self, error: BaseException) -> None:
        self._ending.crash(error)
        self._stop.set()

    def _report(self) -> list[StageHealth]:
        queue = self.state.queue
        return [
            StageHealth(
                stage=SERVE,
                ready=queue is not None,
                stopping=self.state.stopping,
                batch_seconds=self._engine_seconds(),
                in_flight=0 if queue is None else queue.texts,
                documents=0 if queue is None else queue.documents,
                failures=0 if queue is None else queue.failures,
            )
        ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
