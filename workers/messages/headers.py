"""Kafka headers: CloudEvents in binary mode, and W3C trace context.

Every message of a document carries the trace id of the document that came in (or one made for it), and a span id of its
own, so the journey through the stages is one trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

__all__ = ["Headers", "RandomBytes", "Trace", "cloud_event", "find", "next_trace", "parse_traceparent"]

Headers = tuple[tuple[str, bytes | None], ...]
"""As Kafka has them: ordered, names may repeat, a value may be null."""

RandomBytes = Callable[[int], bytes]
"""``os.urandom``, or a test's own."""

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/json"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


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
    headers = (
        *_constant(source, event_type, schema),
        ("ce_id", event_id.encode()),
        ("ce_time", _time(time_ms)),
        ("ce_subject", subject.encode()),
        (TRACEPARENT, trace.parent.encode()),
    )
    return headers if trace.state is None else (*headers, (TRACESTATE, trace.state))


@lru_cache(maxsize=64)
def _constant(source: str, event_type: str, schema: str) -> Headers:
    return (
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event_type.encode()),
        ("ce_dataschema", schema.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    )


@lru_cache(maxsize=16)  # all messages of a batch have the same
def _time(milliseconds: int) -> bytes:
    time = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return time.replace("+00:00", "Z").encode()
