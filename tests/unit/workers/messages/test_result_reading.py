"""Our own readers of results: whatever they were written in, also mixed, and while a registry comes and goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from el4ner.errors import MessageError
from tests.support.paths import ROOT
from workers.config import KafkaSettings
from workers.messages.envelope import Record, decode, decode_record
from workers.messages.result_encoding import result_encoder
from workers.messages.result_reading import ResultReading
from workers.messages.result_schemas import FramedFormat, result_schema
from workers.registry.registered_schema import RegisteredSchema, RegistryAwayError, UnknownSchemaError
from workers.registry.wire_format import framed
from workers.stages.document_schemas import DocumentSchemas
from workers.topics import Topic

TOPIC = Topic.TAGGED_DOCUMENTS
VALUE = (ROOT / "schemas/examples/tagged-documents.v1.complete.json").read_bytes()
IDS: dict[int, FramedFormat] = {1: "json-schema", 2: "avro", 3: "protobuf"}
FRAMED = {
    value_format: framed(number, result_encoder(TOPIC, value_format)(VALUE)) for number, value_format in IDS.items()
}
MIXED = [VALUE, *FRAMED.values(), VALUE, *FRAMED.values()]


@dataclass
class Registry:
    """One whose outages the test has."""

    outages: int = 0
    asked: list[int] = field(default_factory=list)
    closed: bool = False

    def schema(self, schema_id: int) -> RegisteredSchema:
        self.asked.append(schema_id)
        if self.outages:
            self.outages -= 1
            raise RegistryAwayError("refused")
        if schema_id not in IDS:
            raise UnknownSchemaError("Schema not found")
        return result_schema(TOPIC, IDS[schema_id])

    def close(self) -> None:
        self.closed = True


def record(value: bytes) -> Record:
    return Record(TOPIC, TOPIC.value, 0, 0, 0, b"key", value)


def test_programs_read_all_of_them_mixed_and_ask_for_each_schema_once() -> None:
    registry = Registry()
    reading = ResultReading(KafkaSettings(), TOPIC, registry)
    assert [decode(TOPIC, reading.json(value)) for value in MIXED] == [orjson.loads(VALUE)] * len(MIXED)
    assert registry.asked == [2, 3]  # JSON needs none
    assert [reading.needs_schema(value) for value in (None, *MIXED[:4])] == [False, False, False, True, True]
    reading.close()
    assert registry.closed


async def test_workers_read_all_of_them_mixed_and_wait_for_the_registry() -> None:
    registry = Registry(outages=2)
    schemas = DocumentSchemas(registry, topic=TOPIC, wait=lambda _: 0.0)
    named = await schemas.named_by(map(record, MIXED))
    assert [decode_record(each) for each in named] == [orjson.loads(VALUE)] * len(MIXED)
    assert [each.value for each in named] == MIXED  # for the dead letters, byte for byte
    assert registry.asked == [2, 2, 2, 3]


def test_a_registry_that_does_not_answer_is_no_fault_of_the_message() -> None:
    reading = ResultReading(KafkaSettings(), TOPIC, Registry(outages=1))
    with pytest.raises(RegistryAwayError):
        reading.json(FRAMED["avro"])
    assert reading.json(FRAMED["avro"]) == orjson.dumps(orjson.loads(VALUE))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (framed(404, b"\x02a"), "schema-id"),
        (FRAMED["avro"][:-4], "avro"),
        (FRAMED["protobuf"][:-4], "protobuf"),
        (framed(2, FRAMED["protobuf"][5:]), "avro"),
        (framed(3, b"\x00"), "schema"),
    ],
)
def test_what_cannot_be_read_says_why(value: bytes, code: str) -> None:
    reading = ResultReading(KafkaSettings(), TOPIC, Registry())
    with pytest.raises(MessageError) as error:
        decode(TOPIC, reading.json(value))
    assert error.value.code == code


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ({"type": "record", "name": "R", "fields": [{"name": "id", "type": "bytes"}]}, b"\x02x"),
        (
            {"type": "record", "name": "R", "fields": [{"name": "metadata", "type": "string"}]},
            b"\x88\x0e" + b"[" * 450 + b"]" * 450,
        ),
        (
            {"type": "record", "name": "R", "fields": [{"name": "entities", "type": {"type": "map", "values": "int"}}]},
            b"\x00",
        ),
        ("string", b"\x02x"),
    ],
    ids=["bytes", "nested deep", "a map for a list", "no record"],
)
async def test_what_somebody_else_wrote_is_refused_and_no_reader_ends_by_it(schema: Any, body: bytes) -> None:
    @dataclass
    class Foreign(Registry):
        def schema(self, schema_id: int) -> RegisteredSchema:
            return RegisteredSchema("AVRO", orjson.dumps(schema).decode())

    schemas = DocumentSchemas(Foreign(), topic=TOPIC, wait=lambda _: 0.0)
    (named,) = await schemas.named_by([record(framed(9, body))])
    with pytest.raises(MessageError) as error:
        decode_record(named)
    assert error.value.code == "schema"
    with pytest.raises(MessageError):
        decode(TOPIC, ResultReading(KafkaSettings(), TOPIC, Foreign()).json(framed(9, body)))


def test_without_a_registry_the_message_says_what_it_is() -> None:
    reading = ResultReading(KafkaSettings(), TOPIC)
    for value in (FRAMED["avro"], FRAMED["protobuf"]):
        assert reading.json(value) == value
        with pytest.raises(MessageError, match=r"schema id [23].*name the registry in kafka\.registry\.url"):
            decode(TOPIC, reading.json(value))
        with pytest.raises(MessageError, match=r"kafka\.registry\.url"):
            decode_record(replace(record(value), schema=None))
