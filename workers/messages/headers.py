"""Kafka headers: CloudEvents in binary mode, and W3C trace context.

Every message of a document carries the trace id of the document that came in (or one made for it), and a span id of its
own, so the journey through the stages is one trace.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

__all__ = [
    "CE_TYPE",
    "Headers",
    "PooledRandom",
    "RandomBytes",
    "Trace",
    "cloud_event",
    "common_headers",
    "find",
    "next_trace",
    "parse_traceparent",
    "utc_time",
    "with_id",
]

Headers = tuple[tuple[str, bytes | None], ...]
"""As Kafka has them: ordered, names may repeat, a value may be null."""

RandomBytes = Callable[[int], bytes]
"""``os.urandom``, :class:`PooledRandom`, or a test's own."""

SPEC_VERSION: Final = "1.0"
CE_TYPE: Final = "ce_type"
CONTENT_TYPE: Final = "application/json"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class PooledRandom:
    """``os.urandom``, asked for many bytes at a time: for ids, of which every message has one. From any thread.

    Each call of ``os.urandom`` lets another thread run, which with an engine at work costs more than the bytes.
    """

    _POOL: Final = 4096

    def __init__(self) -> None:
        self._pool = b""
        self._place = 0
        self._lock = threading.Lock()

    def __call__(self, size: int) -> bytes:
        """So many random bytes."""
        if size > self._POOL:
            return os.urandom(size)
        with self._lock:
            if self._place + size > len(self._pool):
                self._pool, self._place = os.urandom(self._POOL), 0
            first = self._place
            self._place = first + size
            return self._pool[first : self._place]


@dataclass(frozen=True, slots=True)
class Trace:
    """One span of a trace. ``state`` is the vendor's ``tracestate``, carried along unread."""

    trace_id: str
    span_id: str
    flags: str = "01"
    state: bytes | None = None

    def child(self, random: RandomBytes) -> Trace:
        """A new span in the same trace."""
        return Trace(self.trace_id, random(8).hex(), self.flags, self.state)

    @property
    def parent(self) -> str:
        """The value of ``traceparent``."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def child_parent(self, random: RandomBytes) -> str:
        """:attr:`parent` of a :meth:`child`."""
        return f"00-{self.trace_id}-{random(8).hex()}-{self.flags}"


def find(headers: Iterable[tuple[str, bytes | None]], name: str) -> bytes | None:
    """The last header of that name, or None."""
    last = None
    for key, value in headers:
        if key == name:
            last = value
    return last


def parse_traceparent(headers: Sequence[tuple[str, bytes | None]]) -> Trace | None:
    """The trace that a message is part of; None if the header is missing or breaks the W3C rules."""
    traceparent = find(headers, TRACEPARENT)
    if traceparent is None:
        return None
    match = _TRACEPARENT.fullmatch(traceparent.decode("ascii", "replace").strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Trace(trace_id, span_id, flags, find(headers, TRACESTATE))


def next_trace(headers: Sequence[tuple[str, bytes | None]], random: RandomBytes) -> Trace:
    """A new span in the trace of ``headers``, or in a new trace if they name none."""
    parent = parse_traceparent(headers)
    return Trace(random(16).hex(), random(8).hex()) if parent is None else parent.child(random)


def cloud_event(
    *, event_id: str, source: str, event_type: str, time_ms: int, subject: str, schema: str, trace: Trace
) -> Headers:
    """The headers of a JSON message. ``schema``: the ``$id`` of the schema that its value keeps."""
    common = common_headers(
        source=source, event_type=event_type, time_ms=time_ms, subject=subject, schema=schema, state=trace.state
    )
    return with_id(common, event_id, trace.parent)


def common_headers(
    *, source: str, event_type: str, time_ms: int, subject: str, schema: str, state: bytes | None
) -> Headers:
    """What the headers of :func:`cloud_event` have in common for messages of one kind about one document.
    ``state``: of their trace."""
    constant, time = _constant(source, event_type, schema), ("ce_time", _time(time_ms))
    about = ("ce_subject", subject.encode())
    return (*constant, time, about) if state is None else (*constant, time, about, (TRACESTATE, state))


def with_id(common: Headers, event_id: str, parent: str) -> Headers:
    """The headers of one of these messages. ``parent``: its ``traceparent``."""
    return (*common, ("ce_id", event_id.encode()), (TRACEPARENT, parent.encode()))


@lru_cache(maxsize=64)
def _constant(source: str, event_type: str, schema: str) -> Headers:
    return (
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_source", source.encode()),
        (CE_TYPE, event_type.encode()),
        ("ce_dataschema", schema.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    )


def utc_time(milliseconds: int) -> str:
    """A moment, in milliseconds since the epoch, as messages write it (RFC 3339): ``2026-11-27T08:00:00.000Z``."""
    time = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return time.replace("+00:00", "Z")


@lru_cache(maxsize=16)  # all messages of a batch have the same
def _time(milliseconds: int) -> bytes:
    return utc_time(milliseconds).encode()
