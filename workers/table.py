"""The join's Faust table, with writes whose partition is said and whose delivery can be awaited.

Faust takes the partition of a changelog record from the event that is being iterated over, and hands its delivery
future to nobody; it then trusts a flush before the commit that gives up after 0.1 s (``ProducerBuffer.flush_atmost``),
so a commit can overtake the changelog. Here the caller names the partition and waits for the future.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from dataclasses import dataclass
from typing import Any

import faust
from faust.streams import _current_event

__all__ = ["JoinTable"]


@dataclass
class _Place:
    """What Faust and its stores ask an event for."""

    topic: str
    partition: int


@dataclass
class _StandIn:
    """As much of an event as a write to a table needs (an object that can be weakly referenced)."""

    message: _Place


class JoinTable(faust.Table):  # type: ignore[misc]
    """bytes → bytes."""

    _written: asyncio.Future[Any] | None = None

    def put(self, partition: int, topic: str, key: bytes, value: bytes | None) -> asyncio.Future[Any]:
        """Set a key (None deletes it) as if in an event of that partition.

        ``topic``: the event's topic, whose partition count Faust compares with the changelog's. Returns the delivery
        to the changelog.
        """
        event = _StandIn(_Place(topic, partition))
        token = _current_event.set(weakref.ref(event))
        try:
            if value is not None:
                self[key] = value
            elif key in self:
                del self[key]
            else:
                self.on_key_del(key)
        finally:
            _current_event.reset(token)
        # The memory store notes which partition a key is of only for what it recovered, and so would keep what this
        # process wrote when the partition moves on.
        known = getattr(self.data, "_key_partition", None)
        if known is not None:
            if value is None:
                known.pop(key, None)
            else:
                known[key] = partition
        written, self._written = self._written, None
        if written is None:
            raise RuntimeError("the table wrote nothing to its changelog")
        return written

    def send_changelog(self, *args: Any, **kwargs: Any) -> Any:
        """As Faust's; the future is kept for :meth:`put`."""
        self._written = super().send_changelog(*args, **kwargs)
        return self._written


# mode names a service's logger after the module of its class; this one's messages are Faust's.
JoinTable.logger = logging.getLogger("faust.tables")
