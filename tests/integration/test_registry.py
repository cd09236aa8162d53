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
from google.protobuf import json_format
from typer.testing import CliRunner

from el4ner.errors import ConfigError
from tests.integration.stream_harness import Stream, Worker, wait_until
from tests.support.certificates import Authority
from tests.support.schema_registry import SchemaRegistry, running_registry, wait_ready
from workers.cli.app import app
from workers.config import RegistrySettings
from workers.entities.entity_topic import entities_until_now
from workers.local.ports import LOOPBACK, choose_port
from workers.messages import json_schemas
from workers.messages.envelope import decode
from workers.messages.headers import find
from workers.messages.result_schemas import RESULT_TOPICS, result_record, result_schema
from workers.registry.protobuf_compiler import compiled
from workers.registry.record_json import json_of_record
from workers.registry.registered_schema import RegisteredSchema, RegistryAwayError, SchemaReference
from workers.registry.registry_client import RegistryClient
from workers.registry.wire_format import framed
from workers.tail import tagged_until_now
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
    schema = result_schema(Topic.ENTITY_MENTIONS, "json-schema")
    assert client.register("mentions-value", schema) == client.register("mentions-value", schema)
    older = json.loads(schema.text)
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


GEO = 'syntax = "proto3";\npackage geo;\nmessage City { string name = 1; }\n'
ARTICLE = """
syntax = "proto3";
package shop;
import "geo/city.proto";
import "google/protobuf/timestamp.proto";
message Change { message Row { string id = 1; string body = 2; geo.City city = 3; } Row after = 1; int64 ts_ms = 2; }
message Article { string id = 1; string text = 2; google.protobuf.Timestamp written = 3; geo.City city = 4; }
"""
EVERY_FORMAT = {
    **REGISTRY,
    "entities": {"enabled": True, "trend_seconds": 0.5},
    "redaction": {"keys": f"2026-11:{'5e' * 32}", "reversible": True},
}
FORMATS = ("json", "json-schema", "avro", "protobuf")


def protobuf_article(registry: SchemaRegistry) -> bytes:
    """A framed document whose schema refers to another one."""
    registry.register("city", GEO, "PROTOBUF")
    references = [{"name": "geo/city.proto", "subject": "city", "version": 1}]
    body = {"schema": ARTICLE, "schemaType": "PROTOBUF", "references": references}
    schema_id = int(registry.ask("POST", "/subjects/articles-protobuf-value/versions", body)["id"])
    article = compiled(RegisteredSchema("PROTOBUF", ARTICLE, (SchemaReference("geo/city.proto", GEO),))).message_class
    message = article([1])(id="protobuf", text="Zoe Quinn met Ada in Oslo.", city={"name": "Oslo"})
    # Of its file's messages the second one: one index, which is 1, as zigzag varints.
    return framed(schema_id, b"\x02\x02" + message.SerializeToString())


@pytest.mark.parametrize("stream", [EVERY_FORMAT], indirect=True)
def test_results_of_every_format_are_read_mixed_in_one_topic(stream: Stream, registry: SchemaRegistry) -> None:
    """By who else knows the formats, and by all readers of ours, as the setting is changed while messages are there."""
    stream.create_topics()
    wait_ready(registry)
    documents = [
        (b"json", b'{"text": "Zoe Quinn met Ada in York.", "metadata": {"n": [18446744073709551615, 0.1, null]}}'),
        (b"json-schema", b'{"text": "Zoe Quinn met Ada in Bern."}'),
        (b"avro", '{"text": "Zoe Quinn\\u0000 met Ada in Köln \U0001f600."}'.encode()),
        (b"protobuf", protobuf_article(registry)),
    ]
    for count, (value_format, message) in enumerate(zip(FORMATS, documents, strict=True), 1):
        worker = stream.start("pipeline", environ={"EL4NER_KAFKA__VALUE_FORMAT": value_format}).wait_ready(180)
        stream.produce([message])
        stream.wait_tagged(count)
        assert worker.stop() == 0
    assert reasons(stream) == []

    followers = [
        stream.start(stage, environ={"EL4NER_KAFKA__VALUE_FORMAT": value_format})
        for stage, value_format in (("redact", "protobuf"), ("entities", "avro"))
    ]
    for follower in followers:
        follower.wait_ready(180)
    stream.wait_written(Topic.REDACTED_DOCUMENTS, len(documents))
    whole = {"id", "names", "windows"}
    wait_until(lambda: any(whole <= value.keys() for value in entities_until_now(stream.settings.kafka).all()))
    stream.wait_written(Topic.ENTITY_TRENDS, 1)
    for follower in followers:
        assert follower.stop() == 0
    assert reasons(stream) == []

    tagged = {each.value["id"]: each.value for each in tagged_until_now(stream.settings)}
    assert tagged.keys() == {key.decode() for key, _ in documents}
    assert tagged["json"]["metadata"] == {"n": [18446744073709551615, 0.1, None]}
    assert tagged["avro"]["text"] == "Zoe Quinn\0 met Ada in Köln \U0001f600."
    assert tagged["protobuf"]["text"] == "Zoe Quinn met Ada in Oslo."
    by_others = {}
    for topic in RESULT_TOPICS:
        for record in stream.read(topic):
            if record.value is not None:
                kind, value = read_by_others(registry, topic, record)
                json_schemas.validate(topic.value, value)
                by_others.setdefault((topic, kind), []).append(value)
    kinds = {topic: {kind for of, kind in by_others if of is topic} for topic in RESULT_TOPICS}
    assert kinds == {
        Topic.TAGGED_DOCUMENTS: {"plain", "JSON", "AVRO", "PROTOBUF"},
        Topic.ENTITY_MENTIONS: {"plain", "JSON", "AVRO", "PROTOBUF"},
        Topic.REDACTED_DOCUMENTS: {"PROTOBUF"},
        Topic.ENTITIES: {"AVRO"},
        Topic.ENTITY_TRENDS: {"AVRO"},
    }
    for (topic, _), values in by_others.items():
        if topic is Topic.TAGGED_DOCUMENTS:
            assert values == [tagged[value["id"]] for value in values]
    known = {value["id"]: value for value in entities_until_now(stream.settings.kafka).all()}
    assert known
    assert known.items() <= {value["id"]: value for value in by_others[Topic.ENTITIES, "AVRO"]}.items()
    revealed = CliRunner().invoke(app, ["redact", "reveal", "avro", "--config", str(stream.config)])
    assert revealed.stdout_bytes.decode() == tagged["avro"]["text"]


def reasons(stream: Stream) -> list[bytes | None]:
    """Why there are dead letters."""
    return [find(letter.headers, "el4ner-error-message") for letter in stream.read(Topic.DEAD_LETTERS)]


def read_by_others(registry: SchemaRegistry, topic: Topic, record: Any) -> tuple[str, Any]:
    """A result as a client of the registry reads it that knows nothing of el4ner but its docs."""
    if record.value[:1] == b"{":
        return "plain", json.loads(record.value)
    schema = registry.ask("GET", f"/schemas/ids/{int.from_bytes(record.value[1:5], 'big')}")
    kind, body, content_type = schema.get("schemaType", "AVRO"), record.value[5:], find(record.headers, "content-type")
    if kind == "JSON":
        value = json.loads(body)
    elif kind == "AVRO":
        assert content_type == b"application/avro"
        value = fastavro.schemaless_reader(io.BytesIO(body), json.loads(schema["schema"]), None)
    else:
        assert content_type == b"application/protobuf"
        assert body[:1] == b"\0"
        message = compiled(RegisteredSchema("PROTOBUF", schema["schema"])).message_class([0]).FromString(body[1:])
        value = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        value = with_numbers(value)
    if kind != "JSON":
        value = json_of_record(result_record(topic), value)
    return kind, value


def with_numbers(value: Any) -> Any:
    """Protobuf's JSON has whole numbers of 64 bits as strings."""
    if isinstance(value, dict):
        return {
            key: int(each) if key in ("revision", "start", "end") or key.startswith("original_") else with_numbers(each)
            for key, each in value.items()
        }
    return [with_numbers(each) for each in value] if isinstance(value, list) else value
