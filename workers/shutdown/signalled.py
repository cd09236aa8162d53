"""A process that serves until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from workers.shutdown.end_signals import EndSignals
from workers.shutdown.ending import Ending
from workers.shutdown.watchdog import Watchdog

__all__ = ["run_until_signalled"]


def run_until_signalled(
    serve: Callable[[asyncio.Event, Ending], Awaitable[None]],
    *,
    shutdown_seconds: float,
    watchdog: Watchdog | None,
    status_of: Callable[[BaseException], int],
) -> None:
    """Run ``serve`` in an event loop of its own. From the main thread; raises what it raises.

    Args:
        serve: returns some time after the event is set, as SIGTERM and SIGINT do, and tells the ending how far it is.
        shutdown_seconds: how long it may take for that.
        watchdog: ends the process if something hangs while this ends (:mod:`workers.shutdown.watchdog`). It stays armed
            when this returns or raises, and bounds the program's own end too. None: one that is disarmed then.
        status_of: what the program's exit status will be, by what is raised here.
    """
    dog = Watchdog() if watchdog is None else watchdog
    ending = Ending(shutdown_seconds, watchdog=dog, status_of=status_of)
    try:
        asyncio.run(_until_signalled(serve, ending))
    finally:
        if watchdog is None:
            dog.disarm()


async def _until_signalled(serve: Callable[[asyncio.Event, Ending], Awaitable[None]], ending: Ending) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    ending.watch(loop)

    def on_signal(number: int) -> None:
        # First what needs no loop, since the loop may be what stands still.
        ending.signal(number)
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(stop.set)

    with EndSignals(on_signal):
        try:
            await serve(stop, ending)
        except BaseException as error:
            ending.fail(error)
            raise
