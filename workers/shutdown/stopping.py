"""The end of a process's workers: what was begun is finished, committed and let go of, each within a bound."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from workers.shutdown.ending import Ending

__all__ = ["RunningWorker", "stop_workers"]

log = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 1.0


class RunningWorker(Protocol):
    """A stage's worker: :mod:`workers.stages.stage_worker`, :mod:`workers.join.aggregator`,
    :mod:`workers.ensemble.combiner`."""

    app: Any

    @property
    def documents(self) -> int:
        """What it has answered."""

    @property
    def failures(self) -> int:
        """What it has given up on."""

    @property
    def batch_seconds(self) -> float | None:
        """Age of the batch that is at its engine; None: none is."""

    @property
    def stuck_seconds(self) -> float:
        """For how long a partition has had messages to finish, and has not got on."""

    @property
    def held(self) -> int:
        """Messages that wait for their pool to be read."""

    async def drain(self) -> None:
        """Finish what was begun."""

    async def release(self) -> None:
        """Let go of what the worker holds beside its app."""


async def stop_workers(workers: Sequence[RunningWorker], ending: Ending, crashed: asyncio.Future[Any]) -> None:
    """Take no new messages, finish what was begun (unless a worker has crashed), commit it, leave the groups.

    It takes ``worker.shutdown_seconds`` and ``ending.close_seconds`` at most, as far as what it calls can be cancelled.
    ``crashed`` is done when a worker has crashed, maybe meanwhile.
    """
    for worker in workers:
        worker.app.stopping = True
        worker.app.positions.pause()
    until = asyncio.get_running_loop().time() + ending.close_seconds
    finished = False
    if ending.crashed_by is None:
        until += ending.shutdown_seconds
        finished = await _drain(workers, ending, crashed)
    # Who has crashed has nothing to hand over, and has left its group already.
    commit = ending.crashed_by is None
    closed = await asyncio.gather(*(_close(worker, until, commit=commit) for worker in workers))
    if finished and commit and all(closed):
        ending.finished()


async def _drain(workers: Sequence[RunningWorker], ending: Ending, crashed: asyncio.Future[Any]) -> bool:
    """Whether all that was begun is finished. What the first stages still deliver, the later ones need not take."""
    drains = [asyncio.ensure_future(_drain_one(worker)) for worker in workers]
    all_drained = asyncio.ensure_future(asyncio.wait(drains))
    await asyncio.wait([all_drained, crashed], timeout=ending.shutdown_seconds, return_when=asyncio.FIRST_COMPLETED)
    finished = all_drained.done()
    all_drained.cancel()
    for drain in drains:
        if not drain.done():
            drain.cancel()
        elif (error := drain.exception()) is not None:
            log.error("what was begun could not be finished", exc_info=error)
            finished = False
    return finished


async def _drain_one(worker: RunningWorker) -> None:
    # What is still being taken over would be owned after it was let go of.
    await worker.app.prepared()
    await worker.drain()


async def _close(worker: RunningWorker, until: float, *, commit: bool) -> bool:
    """Whether everything was committed and let go of, by the loop's time ``until``."""
    app, extra = worker.app, {"stage": worker.app.stage}
    closed = False
    try:
        async with asyncio.timeout_at(until):
            if commit and app.started:
                await app.consumer.commit_all()
            await worker.release()
            await app.stop()
        closed = True
    except TimeoutError:
        log.warning("%s did not stop in time", app.stage, extra=extra)
    except Exception:
        # What it could not commit or close is read again by the next one.
        log.exception("%s did not stop cleanly", app.stage, extra=extra)
    if not closed:
        # Its thread would go on with heartbeats, for partitions that nobody works on here any more.
        await asyncio.wait([asyncio.wrap_future(app.leave())], timeout=_LEAVE_SECONDS)
    log.info("%s stopped", app.stage, extra={**extra, "documents": worker.documents, "failures": worker.failures})
    return closed
