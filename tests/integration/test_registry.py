"""Documents behind a schema registry: a real one (Apicurio, which speaks as Confluent's does), and a real broker."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from tests.integration.stream_harness import Stream, wait_until
from tests.support.schema_registry import SchemaRegistry, running_registry, wait_ready
from workers.local.ports import LOOPBACK, choose_port
from workers.messages.headers import find
from workers.registry.wire_format import framed
from workers.topics import Topic

pytestmark = [pytest.mark.integration, pytest.mark.slow]

AVRO = {
    "type": "record",
    "name": "Article",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": ["null", "string"], "default": None},
        {"name": "text", "type": "string"},
        {"name": "revision", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "metadata", "type": {"type": "map", "values": "string"}, "default": {}},
    ],
}
JSON_SCHEMA = json.dumps({"type": "object", "properties": {"text": {"type": "string"}}})
PORT = choose_port(8081)
REGISTRY = {"kafka.registry": {"url": f"http://{LOOPBACK}:{PORT}/apis/ccompat/v7", "timeout_seconds": 1.0}}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SchemaRegistry]:
    """One that was started, and may not answer yet."""
    with running_registry(tmp_path, PORT) as registry:
        yield registry


def written(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


@pytest.mark.parametrize("stream", [REGISTRY], indirect=True)
def test_framed_documents_come_out_tagged(stream: Stream, registry: SchemaRegistry) -> None:
    """Also when it does not answer for a while."""
    stream.create_topics()
    worker = stream.start("pipeline")
    wait_ready(registry)
    avro_id = registry.register("articles-value", json.dumps(AVRO), "AVRO")
    json_id = registry.register("notes-value", JSON_SCHEMA, "JSON")
    worker.wait_ready()
    avro = written(AVRO, {"id": "avro", "text": "Zoe lives in Oslo.", "revision": 1_700_000_000_000})
    broken = {b"unknown": (framed(404, avro), b"schema-id"), b"cut": (framed(avro_id, avro[:-4]), b"avro")}
    registry.pause()
    stream.produce(
        [
            (b"any", framed(avro_id, avro)),
            (b"json", framed(json_id, b'{"text": "Angela lives in Berlin."}')),
            (b"plain", b'{"text": "Ada met Bob in York."}'),
            *((key, value) for key, (value, _) in broken.items()),
        ]
    )
    wait_until(lambda: any("wait for the schema registry" in str(line.get("event")) for line in worker.lines()))
    registry.go_on()
    stream.wait_tagged(5)
    assert worker.stop() == 0
    tagged = {document["id"]: document for document in stream.tagged()}
    assert {name for name, document in tagged.items() if document["status"] == "failed"} == {"unknown", "cut"}
    assert (tagged["avro"]["text"], tagged["avro"]["revision"]) == ("Zoe lives in Oslo.", 1_700_000_000_000)
    assert "Berlin" in [entity["text"] for entity in tagged["json"]["entities"]]
    letters = {record.key: record for record in stream.read(Topic.DEAD_LETTERS)}
    assert letters.keys() == broken.keys()
    for key, (value, code) in broken.items():
        assert (letters[key].value, find(letters[key].headers, "el4ner-error-code")) == (value, code)
