"""Spans of traces to an OpenTelemetry collector, with what el4ner[otel] brings.

The SDK's batch processor (a bounded queue and a thread) and its exporter are used. Its tracer and its id generator are
not: a span has the ids that its message already carries, and messages carry them without el4ner[otel] too.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from typing_extensions import override

from el4ner.errors import ConfigError
from workers.messages.headers import Trace
from workers.telemetry.trace_spans import Attributes, Kind, TraceSpans

__all__ = ["ExportedSpans", "open_exporter"]

log = logging.getLogger(__name__)

_QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_DEFAULT_QUEUE_SIZE: Final = 2048
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "consumer": SpanKind.CONSUMER,
    "producer": SpanKind.PRODUCER,
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
}
_REPETITIVE: Final = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")


def open_exporter(*, version: str, share: float, environ: Mapping[str, str] = os.environ) -> ExportedSpans:
    """Spans over OTLP, as the ``OTEL_*`` variables say.

    Raises:
        ConfigError: one of them is out of range.
    """
    for name in _REPETITIVE:
        # They say the same for every batch that fails, with every attempt; ExportedSpans says it once.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given = environ.get(_QUEUE_SIZE) or str(_DEFAULT_QUEUE_SIZE)
    if not given.isdecimal() or not int(given):
        raise ConfigError(f"{_QUEUE_SIZE}: expected a number above 0, not {given!r}")
    try:
        return ExportedSpans(OTLPSpanExporter(), version=version, share=share, queue_size=int(given))
    except ValueError as error:
        raise ConfigError(f"an OTEL_* variable is out of range: {error}") from error


class ExportedSpans(TraceSpans):
    """Spans that go to an exporter.

    Spans of a trace that came in with the sampled flag off are not exported. Of the others ``share`` is, chosen by the
    trace id: all processes with one share keep the same documents, with all their spans.

    While an exporter is away, the spans that do not fit into the queue are lost, and nothing else. The log has one
    warning when it goes away and one line when it is back.

    Args:
        exporter: takes the batches, on the processor's thread; it is closed with this.
        version: el4ner's.
        share: of the traces, 0 to 1.
        queue_size: spans that may wait.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        version: str,
        share: float = 1.0,
        queue_size: int = _DEFAULT_QUEUE_SIZE,
    ) -> None:
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
            # Nobody has named it (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES).
            resource = resource.merge(Resource({SERVICE_NAME: "el4ner"}))
        self._resource = resource
        self._scope = InstrumentationScope("el4ner", version)
        self._below = TraceIdRatioBased.get_bound_for_rate(share)
        self._watched = _WatchedExporter(exporter, queue_size)
        self._processor = BatchSpanProcessor(self._watched, max_queue_size=queue_size)

    @override
    def record(
        self,
        name: str,
        trace: Trace,
        parent: Trace | None,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        *,
        error: str | None = None,
        kind: Kind = "consumer",
        links: Sequence[Trace] = (),
    ) -> None:
        context = _context(trace, remote=False)
        kept = context.trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._below
        if not (context.trace_flags.sampled and kept and self._watched.admit()):
            return
        self._processor.on_end(
            ReadableSpan(
                name=name,
                context=context,
                parent=None if parent is None else _context(parent, remote=True),
                resource=self._resource,
                attributes=dict(attributes) if error is None else {**attributes, "error.type": error},
                links=[Link(_context(link, remote=True)) for link in links],
                kind=_KINDS[kind],
                status=Status(StatusCode.UNSET) if error is None else Status(StatusCode.ERROR, error),
                start_time=start_ns,
                # Wall clocks may go back.
                end_time=max(start_ns, end_ns),
                instrumentation_scope=self._scope,
            )
        )

    @override
    def counts(self) -> Mapping[tuple[str, ...], float]:
        return self._watched.counts()

    @override
    def close(self, seconds: float) -> None:
        self._watched.refuse()
        # The processor's own end takes up to half a minute when nobody answers; this thread ends with the process.
        closing = threading.Thread(target=self._processor.shutdown, name="spans-close", daemon=True)
        closing.start()
        closing.join(seconds)


class _WatchedExporter(SpanExporter):
    """Counts what waits, what was exported and what was lost, and tells when the exporter goes away and comes back."""

    def __init__(self, exporter: SpanExporter, queue_size: int) -> None:
        self._exporter = exporter
        self._queue_size = queue_size
        self._lock = threading.Lock()
        self._recorded = self._exported = self._dropped = self._waiting = 0
        self._away = False
        self._refusing = False

    def admit(self) -> bool:
        """Whether there is room for one more span in the queue; it counts as waiting then.

        The processor would drop the oldest instead, and tell nobody how many.
        """
        with self._lock:
            self._recorded += 1
            if self._refusing or self._waiting >= self._queue_size:
                self._dropped += 1
                return False
            self._waiting += 1
            return True

    def refuse(self) -> None:
        """There is no more room."""
        with self._lock:
            self._refusing = True

    def counts(self) -> dict[tuple[str, ...], float]:
        with self._lock:
            return {
                ("recorded",): self._recorded,
                ("exported",): self._exported,
                ("dropped",): self._dropped,
            }

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """On the processor's thread."""
        with self._lock:
            self._waiting -= len(spans)
        reason = "it refused them, or did not answer"
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            # Whatever an exporter does, documents go on.
            result, reason = SpanExportResult.FAILURE, repr(error)
        exported = result is SpanExportResult.SUCCESS
        with self._lock:
            if exported:
                self._exported += len(spans)
            else:
                self._dropped += len(spans)
        if not exported and not self._away:
            log.warning("the collector takes no spans: %s; they are dropped", reason, extra={"component": "tracing"})
        elif exported and self._away:
            log.info("the collector takes spans again", extra={"component": "tracing"})
        self._away = not exported
        return result

    @override
    def shutdown(self) -> None:
        self._exporter.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _context(trace: Trace, *, remote: bool) -> SpanContext:
    state = None if trace.state is None else TraceState.from_header([trace.state.decode("ascii", "replace")])
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), remote, TraceFlags(int(trace.flags, 16)), state)
