"""The process of ``el4ner ui``.

start:                   it listens and answers at once; what it shows comes as soon as the broker and the workers
                         can be reached, and again after they were away
stop (SIGTERM, SIGINT):  viewers' streams end, connections are closed
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from random import Random

from el4ner.errors import El4nerError
from workers.config import StreamSettings
from workers.http.connections import HttpServer, listening_socket
from workers.shutdown.ending import Ending
from workers.shutdown.signalled import run_until_signalled
from workers.shutdown.watchdog import Watchdog
from workers.ui.followed_entities import FollowedEntities
from workers.ui.followed_topic import FollowedTopic
from workers.ui.group_lag import LagKeeper
from workers.ui.lessons import Lessons
from workers.ui.live_feed import LiveFeed
from workers.ui.page_app import page_app
from workers.ui.page_state import PageState
from workers.ui.review_queues import ReviewQueues
from workers.ui.taught_pools import TaughtPools
from workers.ui.tried_texts import TriedTexts
from workers.ui.visitors import Visitors
from workers.ui.worker_metrics import SCRAPE_SECONDS, MetricsReader, WorkerMetrics

__all__ = ["PageCrashedError", "run_page", "serve_page"]

log = logging.getLogger(__name__)


class PageCrashedError(El4nerError):
    """The page cannot go on after an error."""

    code = "page-crashed"


def run_page(
    settings: StreamSettings,
    *,
    ready: Callable[[int], None] | None = None,
    watchdog: Watchdog | None = None,
    status_of: Callable[[BaseException], int] = lambda _: 1,
) -> None:
    """Serve the page in this process until SIGTERM or SIGINT. From the main thread; arguments as
    :func:`workers.serve.service.run_service` takes them.

    Raises:
        ConfigError: the address cannot be listened on, or a file that the settings name cannot be used.
        PageCrashedError: it cannot go on.
    """
    run_until_signalled(
        lambda stop, ending: serve_page(settings, stop=stop, ready=ready, ending=ending),
        shutdown_seconds=settings.worker.shutdown_seconds,
        watchdog=watchdog,
        status_of=status_of,
    )


async def serve_page(
    settings: StreamSettings,
    *,
    stop: asyncio.Event,
    ready: Callable[[int], None] | None = None,
    ending: Ending | None = None,
    clock: Callable[[], float] = time.time,
) -> None:
    """As :func:`run_page`, until ``stop`` is set; for use inside a running event loop."""
    ending = Ending(settings.worker.shutdown_seconds) if ending is None else ending
    pools = TaughtPools(settings)
    reviews = ReviewQueues(settings, pools, Random())
    feed = LiveFeed(settings.ui, clock(), reviews)
    followed = FollowedTopic(settings.kafka, feed, clock)
    state = PageState(
        settings,
        Visitors(settings.ui, clock=clock),
        feed,
        followed,
        TriedTexts(settings.ui),
        WorkerMetrics(settings.ui.metrics_urls, clock()),
        LagKeeper(settings.kafka, clock),
        Lessons(settings, pools, clock),
        reviews,
        FollowedEntities(settings, clock),
        clock=clock,
    )
    reader = MetricsReader(settings.ui.metrics_urls)
    listening = listening_socket(settings.ui)
    port = int(listening.getsockname()[1])
    server = HttpServer(page_app(state), settings.ui, close_seconds=ending.close_seconds)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    log.info("listening", extra={"host": settings.ui.host, "port": port})
    if ready is not None:
        ready(port)
    stopped = asyncio.create_task(stop.wait())
    pools.start()
    state.entities.start()
    background = [asyncio.create_task(each) for each in (followed.run(), reviews.run(), _scrape(state, reader))]
    try:
        ended, _ = await asyncio.wait([serving, stopped, *background], return_when=asyncio.FIRST_COMPLETED)
        for task in ended - {stopped}:
            error = None if task.cancelled() else task.exception()
            ending.crash(error or RuntimeError("something ended that goes on until the page does"))
        if ending.crashed_by is None:
            ending.stop()
    finally:
        state.stopping.set()
        server.should_exit = True
        for task in (stopped, *background):
            task.cancel()
        with contextlib.suppress(Exception):
            await serving
        await asyncio.wait([stopped, *background])
        listening.close()
        await asyncio.gather(*(asyncio.to_thread(each.close, ending.close_seconds) for each in (pools, state.entities)))
        await state.tried.close()
        await reader.close()
        ending.finished()
    if (reason := ending.crashed_by) is not None:
        raise PageCrashedError(f"the page cannot go on: {type(reason).__name__}: {reason}") from reason


async def _scrape(state: PageState, reader: MetricsReader) -> None:
    """Ask the workers again and again, until cancelled."""
    while True:
        state.metrics.take(await reader.read(), state.clock())
        await asyncio.sleep(SCRAPE_SECONDS)
