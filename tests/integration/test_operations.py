"""What a running worker tells of itself: probes, metrics, and traces at a collector."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import documents
from workers.messages.headers import parse_traceparent
from workers.topics import Topic

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


def get(port: int, path: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, text = get(port, "/metrics")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("stream", [{"worker": {"web_port": 0}}], indirect=True)
def test_probes_and_metrics_tell_what_happened(stream: Stream) -> None:
    stream.create_topics()
    worker = stream.start("all").wait_ready()
    port = next(line["port"] for line in worker.lines() if "port" in line)
    assert get(port, "/livez")[0] == 200
    status, body = get(port, "/readyz")
    assert status == 200
    assert set(json.loads(body)["stages"]) == {"extract", "classify", "validate", "aggregate"}
    sent = documents(60)
    stream.produce_documents(sent)
    stream.produce([(b"broken", b"this is not JSON")])
    stream.wait_tagged(61)

    def settled() -> bool:
        found = metrics(port)
        lags = [value for (name, _), value in found.items() if name == "el4ner_consumer_lag_messages"]
        return bool(lags) and not any(lags)

    wait_until(settled, what="no lag")
    found = metrics(port)

    def value(name: str, **labels: str) -> float:
        return found[name, tuple(sorted(labels.items()))]

    assert value("el4ner_tagged_documents_total", status="complete") == 60
    assert value("el4ner_tagged_documents_total", status="failed") == 1
    for stage in ("extract", "classify", "validate"):
        assert value("el4ner_documents_total", stage=stage, outcome="ok") == 60
    assert value("el4ner_dead_letters_total", stage="extract", code="json") == 1
    assert value("el4ner_join_open_documents") == 0
    assert value("el4ner_join_remembered_documents") == 61
    assert value("el4ner_end_to_end_seconds_count") == 61
    assert value("el4ner_transactions_total", outcome="committed") >= 1
    tagged = stream.tagged()
    counted = sum(value_ for (name, _), value_ in found.items() if name == "el4ner_entities_total")
    assert counted == sum(len(document["entities"]) for document in tagged)
    assert worker.stop() == 0


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP endpoint, and the spans that came in."""
    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            spans.extend(span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("stream", [{"worker": {"tracing": True}}], indirect=True)
def test_a_documents_journey_is_one_trace(stream: Stream, collector: tuple[str, list[Any]]) -> None:
    endpoint, spans = collector
    stream.create_topics()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    worker = stream.start("all", environ=environ).wait_ready()
    sent = documents(20)
    stream.produce_documents(sent)
    stream.wait_tagged(20)
    assert worker.stop() == 0
    by_trace: dict[str, list[Any]] = defaultdict(list)
    for span in spans:
        by_trace[span.trace_id.hex()].append(span)
    records = stream.read(Topic.TAGGED_DOCUMENTS)
    assert len(by_trace) == len(records) == 20
    for record in records:
        trace = parse_traceparent(record.headers)
        assert trace is not None
        own = {span.span_id.hex(): span for span in by_trace[trace.trace_id]}
        # Three stages and the join; the last one's span is what downstream finds in the message.
        assert len(own) == 4
        assert own[trace.span_id].name == "join documents"
        journey, at = [], trace.span_id
        while at in own:
            journey.append(own[at].name)
            at = own[at].parent_span_id.hex()
        assert journey == [
            "join documents",
            "process typed-entities",
            "process span-candidates",
            "process documents",
        ]
        document = orjson.loads(record.value)
        for span in own.values():
            attributes = {one.key: one.value for one in span.attributes}
            assert attributes["el4ner.document_id"].string_value == document["id"]
            assert document["text"] not in str(span)
