"""What probes and scrapes are told of the workers of a process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from workers.config import WorkerSettings
from workers.shutdown.ending import Ending
from workers.shutdown.stopping import RunningWorker
from workers.telemetry.health import Health, StageHealth, observe_stages
from workers.telemetry.metrics import Metrics

__all__ = ["serve_probes"]

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def serve_probes(
    settings: WorkerSettings, workers: Sequence[RunningWorker], metrics: Metrics, ending: Ending
) -> AsyncIterator[None]:
    """Answer probes and scrapes on ``worker.web_port``, if there is one. ``workers`` may still be empty."""
    if settings.web_port is None:
        yield
        return
    # Not before it is needed: aiohttp's server takes 0.3 s.
    from workers.telemetry.web import HealthServer

    def report() -> list[StageHealth]:
        return [_health(worker) for worker in workers]

    observe_stages(metrics, report)
    metrics.observe("el4ner_consumer_lag_messages", lambda: _lags(workers))
    metrics.observe("el4ner_held_messages", lambda: {(worker.app.stage,): worker.held for worker in workers})
    health = Health(
        report,
        stall_seconds=settings.stall_seconds,
        batch_deadline_seconds=settings.batch_deadline_seconds,
        given_up=ending.problem,
    )
    server = HealthServer(settings.web_host, settings.web_port, health, exposition=metrics.exposition)
    await server.start()
    log.info("health on port %d", server.port, extra={"port": server.port})
    try:
        yield
    finally:
        await server.stop()


def _health(worker: RunningWorker) -> StageHealth:
    app = worker.app
    return StageHealth(
        stage=app.stage,
        ready=app.ready.is_set(),
        stopping=app.stopping,
        stuck_seconds=worker.stuck_seconds,
        batch_seconds=worker.batch_seconds,
        in_flight=app.positions.in_flight,
        lag=app.lag,
        documents=worker.documents,
        failures=worker.failures,
    )


def _lags(workers: Sequence[RunningWorker]) -> dict[tuple[str, ...], float]:
    return {
        (worker.app.stage, topic, str(partition)): lag
        for worker in workers
        for (topic, partition), lag in worker.app.lags.items()
    }
