"""Documents behind a schema registry: a real one (Apicurio, which speaks as Confluent's does), and a real broker."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fastavro
import jsonschema_rs
import pytest

from el4ner.errors import ConfigError
from tests.integration.stream_harness import Stream, Worker, wait_until
from tests.support.certificates import Authority
from tests.support.schema_registry import SchemaRegistry, running_registry, wait_ready
from workers.config import RegistrySettings
from workers.kafka.value_frames import registered_schema_of
from workers.local.ports import LOOPBACK, choose_port
from workers.messages import json_schemas
from workers.messages.envelope import decode
from workers.messages.headers import find
from workers.registry.registered_schema import RegisteredSchema, RegistryAwayError
from workers.registry.registry_client import RegistryClient
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
REGISTRY = {
    "kafka": {"value_format": "json-schema"},
    "kafka.registry": {"url": f"http://{LOOPBACK}:{PORT}/apis/ccompat/v7", "timeout_seconds": 1.0},
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistry]:
    """One that was started, and may not answer yet."""
    with running_registry(tmp_path_factory.mktemp("registry"), PORT) as registry:
        yield registry


def written(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


@pytest.mark.parametrize("stream", [REGISTRY], indirect=True)
def test_framed_documents_come_out_tagged(stream: Stream, registry: SchemaRegistry) -> None:
    """Tagged documents and mentions in frames too, and nothing is lost while the registry does not answer."""
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
    registered = {
        topic: registry.ask("GET", f"/subjects/{stream.name(topic)}-value/versions/latest")
        for topic in (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS)
    }
    values: dict[Topic, list[Any]] = {topic: [] for topic in registered}
    for topic, schema in registered.items():
        allows = jsonschema_rs.Draft7Validator(json.loads(schema["schema"]))
        for record in stream.read(topic):
            # As any client of the registry reads it.
            assert record.value[:5] == b"\0" + schema["id"].to_bytes(4, "big")
            value = json.loads(record.value[5:])
            allows.validate(value)
            json_schemas.validate(topic.value, value)
            assert decode(topic, record.value) == value  # as el4ner's own readers do
            values[topic].append(value)
    tagged = {document["id"]: document for document in values[Topic.TAGGED_DOCUMENTS]}
    assert len(values[Topic.ENTITY_MENTIONS]) == sum(len(document["entities"]) for document in tagged.values()) > 0
    assert {name for name, document in tagged.items() if document["status"] == "failed"} == {"unknown", "cut"}
    assert (tagged["avro"]["text"], tagged["avro"]["revision"]) == ("Zoe lives in Oslo.", 1_700_000_000_000)
    assert "Berlin" in [entity["text"] for entity in tagged["json"]["entities"]]
    letters = {record.key: record for record in stream.read(Topic.DEAD_LETTERS)}
    assert letters.keys() == broken.keys()
    for key, (value, code) in broken.items():
        assert (letters[key].value, find(letters[key].headers, "el4ner-error-code")) == (value, code)


def test_a_schema_that_does_not_go_with_the_subject_ends_the_start(registry: SchemaRegistry) -> None:
    wait_ready(registry)
    client = RegistryClient.of(RegistrySettings(url=registry.url))
    schema = registered_schema_of(Topic.ENTITY_MENTIONS)
    assert client.register("mentions-value", schema) == client.register("mentions-value", schema)
    older = json.loads(schema)
    older["required"].remove("text")
    registry.register("other-value", json.dumps(older), "JSON")
    registry.ask("PUT", "/config/other-value", {"compatibility": "BACKWARD"})
    with pytest.raises(ConfigError, match=r"refuses the schema of subject other-value: 409.*not compatible"):
        client.register("other-value", schema)
    client.close()


@pytest.mark.parametrize(
    "stream", [{"kafka.registry": {"url": f"http://{LOOPBACK}:{choose_port(8082)}"}}], indirect=True
)
def test_workers_that_wait_for_the_registry_end_in_order_and_acknowledge_nothing(stream: Stream) -> None:
    stream.create_topics()

    def waits(worker: Worker, whoever: str) -> bool:
        return any(f"{whoever} wait for the schema registry" in str(line.get("event")) for line in worker.lines())

    registers = stream.start("pipeline", environ={"EL4NER_KAFKA__VALUE_FORMAT": "json-schema"})
    wait_until(lambda: waits(registers, "workers"))
    assert registers.stop() == 0
    reads = stream.start("pipeline").wait_ready()
    stream.produce([(b"a", framed(1, b"\x02")), (b"b", b'{"text": "Ada"}')])
    wait_until(lambda: waits(reads, "documents"))
    assert reads.stop() == 0
    assert sum(stream.committed("pipeline").values()) <= 1  # the plain one, if it is in a partition of its own
    assert stream.read(Topic.DEAD_LETTERS) == []


def test_the_registry_is_asked_by_tls(registry: SchemaRegistry, tmp_path: Path) -> None:
    wait_ready(registry)
    schema_id = registry.register("tls-value", '"string"', "AVRO")
    trusting = {"url": registry.tls_url, "ssl_cafile": registry.authority.cafile}
    with closing(RegistryClient.of(RegistrySettings.model_validate(trusting))) as client:
        assert client.schema(schema_id) == RegisteredSchema("AVRO", '"string"')
    other = {**trusting, "ssl_cafile": Authority(tmp_path, "another").cafile}
    with (
        closing(RegistryClient.of(RegistrySettings.model_validate(other))) as client,
        pytest.raises(RegistryAwayError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.schema(schema_id)
