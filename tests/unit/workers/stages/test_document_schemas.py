"""Framed documents, and a registry that comes and goes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import fastavro
from fastavro.schema import parse_schema

from workers.config import KafkaSettings
from workers.messages.envelope import Record
from workers.messages.headers import find
from workers.registry.protobuf_compiler import compiled
from workers.registry.registered_schema import RegisteredSchema, RegistryAwayError, UnknownSchemaError
from workers.registry.wire_format import framed
from workers.stages.document_schemas import DocumentSchemas
from workers.stages.stage import Deleted, Failure, Work
from workers.stages.table import EXTRACT, reading
from workers.topics import Topic

DOCUMENT = {
    "type": "record",
    "name": "Document",
    "fields": [
        {"name": "id", "type": ["null", "string"], "default": None},
        {"name": "text", "type": "string"},
        {"name": "metadata", "type": {"type": "map", "values": ["bytes", "string"]}, "default": {}},
    ],
}
BYTES = {"type": "record", "name": "B", "fields": [{"name": "text", "type": "bytes"}]}


@dataclass
class Source:
    """A registry whose outages the test has."""

    schemas: dict[int, RegisteredSchema]
    outages: int = 0
    asked: list[int] = field(default_factory=list)

    def schema(self, schema_id: int) -> RegisteredSchema:
        self.asked.append(schema_id)
        if self.outages:
            self.outages -= 1
            raise RegistryAwayError("refused")
        if schema_id not in self.schemas:
            raise UnknownSchemaError("Schema not found")
        return self.schemas[schema_id]

    def close(self) -> None:
        self.schemas.clear()


def registered(schema: Any) -> RegisteredSchema:
    return RegisteredSchema("AVRO", json.dumps(schema))


def avro(schema_id: int, schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parse_schema(json.loads(json.dumps(schema))), value)
    return framed(schema_id, out.getvalue())


def record(value: bytes | None) -> Record:
    return Record(Topic.DOCUMENTS, "documents", 0, 0, 0, b"key", value)


async def read(source: Source, *values: bytes | None, **settings: Any) -> list[Any]:
    schemas = DocumentSchemas(source, wait=lambda _: 0.0, clock=lambda: 0.0)
    stage = reading(EXTRACT, KafkaSettings(**settings))
    return [stage.read(each, max_document_chars=100) for each in await schemas.named_by(map(record, values))]


async def test_documents_are_read_by_their_schemas_which_are_asked_for_once() -> None:
    source = Source({7: registered(DOCUMENT), 8: RegisteredSchema("JSON", "{}")})
    first = avro(7, DOCUMENT, {"id": "a", "text": "Ada", "metadata": {"by": "Zoë", "raw": b"\xff"}})
    second = avro(7, DOCUMENT, {"text": "Bob"})
    works = await read(source, first, second, framed(8, b'{"text": "Eve"}'), b'{"text": "Dan"}', None)
    assert [(work.document.id, work.document.text) for work in works[:4]] == [
        ("a", "Ada"),
        ("key", "Bob"),  # an id that is null is none
        ("key", "Eve"),
        ("key", "Dan"),
    ]
    assert works[0].carried["metadata"] == {"by": "Zoë", "raw": "ÿ"}
    assert isinstance(works[4], Deleted)
    assert source.asked == [7, 8]


async def test_a_place_in_the_decoded_value_is_found() -> None:
    schema = {
        "type": "record",
        "name": "Change",
        "fields": [
            {"name": "after", "type": ["null", DOCUMENT]},
            {"name": "ts_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        ],
    }
    changes = [{"after": {"id": "a", "text": "Ada"}, "ts_ms": 5}, {"after": None, "ts_ms": 6}]
    values = [avro(3, schema, change) for change in changes]
    work, gone = await read(Source({3: registered(schema)}), *values, text_path="after.text", revision_path="ts_ms")
    assert (work.document.text, work.document.revision) == ("Ada", 5)
    assert isinstance(gone, Deleted)


PROTOBUF = RegisteredSchema(
    "PROTOBUF",
    """
    syntax = "proto3";
    message Unused {}
    message Note { string id = 1; string text = 2; uint64 revision = 3; map<string, bytes> metadata = 4; }
    message Change { Note after = 1; int64 ts_ms = 2; }
    """,
)


async def test_documents_in_protobuf_are_read_whole_or_by_a_path() -> None:
    file = compiled(PROTOBUF)
    note = file.message_class([1])(text="Ada", revision=7, metadata={"raw": b"\xff"})
    changes = [file.message_class([2])(after=note, ts_ms=5), file.message_class([2])(ts_ms=6)]
    whole = framed(4, b"\x02\x02" + note.SerializeToString())
    (work,) = await read(Source({4: PROTOBUF}), whole)
    assert (work.document.id, work.document.text, work.document.revision) == ("key", "Ada", 7)
    assert work.carried["metadata"] == {"raw": "ÿ"}
    values = [framed(4, b"\x02\x04" + change.SerializeToString()) for change in changes]
    work, gone = await read(Source({4: PROTOBUF}), *values, text_path="after.text", revision_path="ts_ms")
    assert (work.document.text, work.document.revision) == ("Ada", 5)
    assert isinstance(gone, Deleted)


async def test_a_broken_protobuf_document_is_a_dead_letter_that_says_so() -> None:
    (failure,) = await read(Source({4: PROTOBUF}), framed(4, b"\x02\x02\x12\x7fAda"))
    assert (failure.error.code, str(failure.error)) == (
        "protobuf",
        "the value is not what its Protobuf schema says (Note)",
    )


async def test_documents_wait_for_a_registry_that_is_away() -> None:
    source = Source({7: registered(DOCUMENT)}, outages=5)
    (work,) = await read(source, avro(7, DOCUMENT, {"text": "Ada"}))
    assert isinstance(work, Work)
    assert source.asked == [7] * 6


async def test_an_unknown_schema_is_a_dead_letter_byte_for_byte() -> None:
    value = avro(9, DOCUMENT, {"text": "Ada"})
    (failure,) = await read(Source({}), value)
    assert isinstance(failure, Failure)
    assert (failure.document, failure.error.code) == ("key", "schema-id")
    assert "schema id 9" in str(failure.error)
    letter, _ = EXTRACT.give_up(failure, now_ms=1, random=lambda size: b"\1" * size).messages
    assert letter.value == value
    assert find(letter.headers, "el4ner-error-code") == b"schema-id"


async def test_an_unknown_id_is_asked_for_again_after_half_a_minute() -> None:
    """The letter may be sent again when the schema is there."""
    times = iter((0.0, 29.0, 30.0, 30.0))
    source = Source({})
    schemas = DocumentSchemas(source, wait=lambda _: 0.0, clock=lambda: next(times))
    value = record(avro(9, DOCUMENT, {"text": "Ada"}))
    for _ in range(3):
        await schemas.named_by([value])
    assert source.asked == [9, 9]


async def test_a_text_in_bytes_is_refused() -> None:
    value = avro(5, BYTES, {"text": "Zoë".encode()})
    (failure,) = await read(Source({5: registered(BYTES)}), value)
    assert "is bytes" in str(failure.error)
    (failure,) = await read(Source({5: registered(BYTES)}), value, text_path="text")
    assert "that is bytes; it has to be text" in str(failure.error)
