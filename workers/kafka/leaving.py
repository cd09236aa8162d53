"""A consumer's thread that can leave its group at once, while the rest of the process hangs.

The consumer sends its heartbeats from a thread, on a loop of its own. They go on while the app's loop is blocked: a
process that has given up, and does not leave the group, would keep its partitions and do nothing with them.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from typing import Any, Final

from aiokafka.errors import IllegalGenerationError
from faust.transport.drivers import aiokafka as driver
from mode.threads import ServiceThread, WorkerThread
from typing_extensions import override

__all__ = ["LeavingThread"]

log = logging.getLogger(__name__)

_THREAD_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 1.0


class _DaemonThread(WorkerThread):  # type: ignore[misc]
    """mode's, but neither the event loop nor the interpreter's exit wait for it without a bound."""

    def __init__(self, service: ServiceThread, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True

    @override
    def stop(self) -> None:
        """mode calls this on the event loop, and would join the thread there, for as long as that takes."""
        self.is_stopped.wait(_THREAD_SECONDS)


class LeavingThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread, with :meth:`leave`."""

    Worker = _DaemonThread
    _has_left = False

    @override
    async def on_start(self) -> None:
        await super().on_start()
        if self._has_left:
            await self._leave()

    def leave(self) -> Future[None]:
        """Leave the group, from any thread. What is returned is done when that was tried; nothing waits for it here."""
        left: Future[None] = Future()

        def begin() -> None:
            task = self.thread_loop.create_task(self._leave())
            task.add_done_callback(lambda _: left.set_result(None))

        try:
            self.thread_loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed: the thread has stopped in order, and left
            left.set_result(None)
        return left

    async def _leave(self) -> None:
        self._has_left = True
        coordinator = None if self._consumer is None else self._consumer._coordinator
        # None: the consumer has not started. Without a group there is a coordinator of another kind.
        if coordinator is None or not hasattr(coordinator, "_maybe_leave_group"):
            return
        # Its routine ends and joins no more. (The coordinator's own close() waits for that first: maybe for brokers.)
        if not coordinator._closing.done():
            coordinator._closing.set_result(None)
        if coordinator._heartbeat_task is not None:
            coordinator._heartbeat_task.cancel()
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                await coordinator._maybe_leave_group()
        except TimeoutError:
            log.warning("the group could not be left: the broker notices within kafka.session_timeout_seconds")
        finally:
            # Whatever still runs in there asks the group's coordinator for nothing more, heartbeats least of all.
            coordinator._send_req = _refuse


async def _refuse(_request: Any) -> Any:
    # What a broker answers to a former member: the client can handle it.
    raise IllegalGenerationError
