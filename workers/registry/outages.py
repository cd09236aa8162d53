"""Waiting for a registry that is away: nothing is lost by that, and nobody gives up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from workers.registry.registered_schema import RegistryAwayError

__all__ = ["answer_of"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


async def answer_of(ask: Callable[[], Answer], wait: Callable[[int], float], who: str, **extra: Any) -> Answer:
    """What ``ask`` returns, called on a thread, and again for as long as the registry is away.

    ``wait``: seconds before the n-th retry. ``who`` waits, for the line in the log, which has ``extra`` too. Other
    errors of ``ask`` are raised.
    """
    retry = 0
    while True:
        try:
            return await asyncio.to_thread(ask)
        except RegistryAwayError as error:
            retry += 1
            log.warning("%s wait for the schema registry: %s", who, error, extra={"retry": retry, **extra})
            await asyncio.sleep(wait(retry))
