"""Spans: a document's journey is one trace, with the ids that its messages carry, and costs nothing when it is off."""

from __future__ import annotations

import http.server
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from el4ner.errors import ConfigError
from workers.messages.headers import Headers, Trace, cloud_event, next_trace, parse_traceparent
from workers.telemetry.otel import ExportedSpans
from workers.telemetry.trace_spans import NoSpans, TraceSpans, consumed
from workers.telemetry.tracing import open_spans

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
START, END = 1_700_000_000_000_000_000, 1_700_000_001_500_000_000
CLOSE_SECONDS = 30.0


class Numbered:
    """Random bytes that never repeat."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


class Away(SpanExporter):
    """An exporter that fails, by its result or by an exception, until ``back`` is set."""

    def __init__(self, *, raising: bool = False) -> None:
        self.back = False
        self.batches = 0
        self._raising = raising

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.batches += 1
        if self.back:
            return SpanExportResult.SUCCESS
        if self._raising:
            raise OSError("no route to host")
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


class Stuck(Away):
    """An exporter that never comes back from a call, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.release.wait(CLOSE_SECONDS)
        return SpanExportResult.FAILURE


def headers_of(trace: Trace) -> Headers:
    return cloud_event(
        event_id="e", source="el4ner/x", event_type="t", time_ms=0, subject="d", schema="urn:s", trace=trace
    )


def record(spans: TraceSpans, trace: Trace, parent: Trace | None = None, error: str | None = None) -> None:
    attributes = consumed(
        stage="extract",
        group="el4ner-extract",
        source="documents",
        partition=2,
        offset=17,
        document="d-1",
        revision=3,
    )
    spans.record("process documents", trace, parent, START, END, attributes, error=error)


def new_trace(random: Numbered) -> Trace:
    return next_trace((), random)


def wait_for(what: str, condition: object) -> None:
    deadline = time.monotonic() + 30
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast batches, and nothing of the machine's own settings."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")


# --- the journey ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upstream", [None, Trace(TRACE_ID, "00f067aa0ba902b7", state=b"vendor=1")])
def test_a_documents_journey_is_one_trace_with_the_ids_of_its_messages(
    memory: InMemorySpanExporter, upstream: Trace | None
) -> None:
    spans = ExportedSpans(memory, version="1")
    random = Numbered()
    headers: Headers = () if upstream is None else headers_of(upstream)
    carried = []
    topics = ["documents", "span-candidates", "typed-entities", "validation-verdicts"]
    for stage, topic in zip(["extract", "classify", "validate", "aggregate"], topics, strict=True):
        trace, parent = next_trace(headers, random), parse_traceparent(headers)
        links = carried[:-1] if stage == "aggregate" else []
        attributes = consumed(stage=stage, group=f"el4ner-{stage}", source=topic, partition=0, offset=5, document="d-1")
        spans.record(f"process {topic}", trace, parent, START, END, attributes, links=links)
        headers = headers_of(trace)
        carried.append(trace)
    spans.close(CLOSE_SECONDS)

    finished = memory.get_finished_spans()
    assert [span.name for span in finished] == [f"process {topic}" for topic in topics]
    assert [format(span.context.span_id, "016x") for span in finished if span.context] == [
        trace.span_id for trace in carried
    ]
    expected = carried[0].trace_id if upstream is None else TRACE_ID
    assert {format(span.context.trace_id, "032x") for span in finished if span.context} == {expected}
    parents = [None if span.parent is None else format(span.parent.span_id, "016x") for span in finished]
    first = None if upstream is None else upstream.span_id
    assert parents == [first, *(trace.span_id for trace in carried[:-1])]
    assert all(span.parent is None or span.parent.is_remote for span in finished)
    assert [format(link.context.span_id, "016x") for link in finished[-1].links] == [
        trace.span_id for trace in carried[:2]
    ]
    if upstream is not None:
        assert [dict(span.context.trace_state) for span in finished if span.context] == [{"vendor": "1"}] * 4


def test_a_span_says_where_its_message_lay_and_whose_document_it_was(memory: InMemorySpanExporter) -> None:
    spans = ExportedSpans(memory, version="1.2.3")
    record(spans, new_trace(Numbered()))
    spans.close(CLOSE_SECONDS)
    (span,) = memory.get_finished_spans()
    assert span.attributes is not None
    assert dict(span.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "documents",
        "messaging.destination.partition.id": "2",
        "messaging.kafka.offset": 17,
        "messaging.consumer.group.name": "el4ner-extract",
        "el4ner.stage": "extract",
        "el4ner.document_id": "d-1",
        "el4ner.revision": 3,
    }
    assert (span.start_time, span.end_time, span.kind) == (START, END, SpanKind.CONSUMER)
    assert span.status.status_code is StatusCode.UNSET
    assert span.resource.attributes["service.name"] == "el4ner"
    assert span.resource.attributes["service.version"] == "1.2.3"


def test_what_failed_is_marked_with_its_code(memory: InMemorySpanExporter) -> None:
    spans = ExportedSpans(memory, version="1")
    record(spans, new_trace(Numbered()), error="json")
    spans.close(CLOSE_SECONDS)
    (span,) = memory.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "json")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "json"


def test_a_message_of_nobodys_document_and_a_deletion_say_so() -> None:
    attributes = consumed(
        stage="extract", group="g", source="documents", partition=0, offset=1, document=None, deleted=True
    )
    assert "el4ner.document_id" not in attributes
    assert attributes["messaging.kafka.message.tombstone"] is True


def test_a_clock_that_goes_back_gives_no_negative_time(memory: InMemorySpanExporter) -> None:
    spans = ExportedSpans(memory, version="1")
    spans.record("process x", new_trace(Numbered()), None, END, START, {})
    spans.close(CLOSE_SECONDS)
    (span,) = memory.get_finished_spans()
    assert span.end_time == END


# --- sampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "exported"), [("00", 0), ("01", 1), ("02", 0), ("03", 1)])
def test_the_sampled_flag_of_the_document_is_honoured(memory: InMemorySpanExporter, flags: str, exported: int) -> None:
    spans = ExportedSpans(memory, version="1")
    record(spans, next_trace([("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-{flags}".encode())], Numbered()))
    spans.close(CLOSE_SECONDS)
    assert len(memory.get_finished_spans()) == exported


def test_all_stages_keep_the_same_share_of_the_documents() -> None:
    kept = []
    traces = [Trace(f"{number * 0x9E3779B97F4A7C15 % 2**64:032x}", "1" * 16) for number in range(1, 401)]
    for _ in range(2):
        memory = InMemorySpanExporter()
        spans = ExportedSpans(memory, version="1", share=0.25)
        for trace in traces:
            record(spans, trace)
        spans.close(CLOSE_SECONDS)
        kept.append([span.context.trace_id for span in memory.get_finished_spans() if span.context])
    assert kept[0] == kept[1]
    assert 60 <= len(kept[0]) <= 140


# --- collectors that are away --------------------------------------------------------------------------------------


@pytest.mark.parametrize("raising", [False, True])
def test_a_collector_that_is_away_costs_its_spans_and_two_lines_in_the_log(
    caplog: pytest.LogCaptureFixture, raising: bool
) -> None:
    caplog.set_level(logging.INFO, "workers")
    random, exporter = Numbered(), Away(raising=raising)
    spans = ExportedSpans(exporter, version="1")
    for batches in (1, 2, 3):
        record(spans, new_trace(random))
        wait_for("a batch", lambda batches=batches: exporter.batches == batches)
    exporter.back = True
    record(spans, new_trace(random))
    spans.close(CLOSE_SECONDS)
    assert spans.counts() == {("recorded",): 4, ("exported",): 1, ("dropped",): 3}
    assert [record.levelname for record in caplog.records if record.name == "workers.telemetry.otel"] == [
        "WARNING",
        "INFO",
    ]


def test_a_collector_that_hangs_fills_a_bounded_queue_and_holds_up_neither_documents_nor_the_end() -> None:
    random, exporter = Numbered(), Stuck()
    spans = ExportedSpans(exporter, version="1", queue_size=1_000)
    record(spans, new_trace(random))
    assert exporter.entered.wait(30)
    for _ in range(3_000):
        record(spans, new_trace(random))
    assert spans.counts() == {("recorded",): 3_001, ("exported",): 0, ("dropped",): 2_000}
    began = time.monotonic()
    spans.close(0.05)
    assert time.monotonic() - began < 10
    record(spans, new_trace(random))
    assert spans.counts()[("dropped",)] == 2_001
    exporter.release.set()


# --- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enabled", "environ"),
    [(False, {}), (True, {"OTEL_SDK_DISABLED": "true"}), (True, {"OTEL_TRACES_EXPORTER": "none"})],
)
def test_off_is_off(enabled: bool, environ: dict[str, str]) -> None:
    spans = open_spans(enabled, version="1", environ=environ)
    assert isinstance(spans, NoSpans)
    record(spans, new_trace(Numbered()))
    assert spans.counts() == {}
    spans.close(0)


def test_off_imports_nothing() -> None:
    code = (
        "import sys; from workers.telemetry.tracing import open_spans; open_spans(False, version='1');"
        "print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_on_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "workers.telemetry.otel")
    # The package remembers its submodules.
    monkeypatch.delattr("workers.telemetry.otel")
    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"worker\.tracing: .*el4ner\[otel\]"):
        open_spans(True, version="1", environ={})


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.5"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "100"},
    ],
    ids=lambda environ: " ".join(f"{name}={value}" for name, value in environ.items()),
)
def test_a_variable_that_asks_for_what_there_is_not_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=list(environ)[-1] if "100" not in environ.values() else "max_export_batch"):
        open_spans(True, version="1", environ=environ)


# --- over the wire -------------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[tuple[int, list[ExportTraceServiceRequest]]]:
    """An OTLP collector: its port, and what it was sent."""
    sent: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                sent.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, sent
        server.shutdown()
        thread.join()


def test_spans_reach_the_collector_that_the_standard_variables_name(
    collector: tuple[int, list[ExportTraceServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, sent = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tagging")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    spans = open_spans(True, version="1")
    parent = Trace(TRACE_ID, "00f067aa0ba902b7")
    trace = next_trace(headers_of(parent), Numbered())
    spans.record("process documents", trace, parent, START, END, {"el4ner.stage": "extract"}, links=[parent])
    spans.close(CLOSE_SECONDS)
    assert spans.counts() == {("recorded",): 1, ("exported",): 1, ("dropped",): 0}
    (resource,) = sent[0].resource_spans
    names = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert names["service.name"] == "tagging"
    (span,) = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        TRACE_ID,
        trace.span_id,
        parent.span_id,
    )
    assert span.links[0].span_id.hex() == parent.span_id
