"""Avro and Protobuf schemas are what the JSON Schemas say, and a Protobuf field has its number for ever."""

from __future__ import annotations

from typing import Any

import fastavro
import orjson
import pytest

from tests.support.paths import ROOT
from tools.record_schemas import FieldChangeError, numbered, record_files
from workers.messages.json_schemas import COMMON, load
from workers.messages.result_schemas import FIELD_NUMBERS, RESULT_TOPICS, result_schema
from workers.registry.json_schema_records import InexpressibleError, record_of
from workers.registry.protobuf_compiler import compiled
from workers.registry.protobuf_records import message_fields, protobuf_schema_text
from workers.registry.registered_schema import RegisteredSchema
from workers.topics import Topic

SCHEMAS = ROOT / "schemas"


def record(properties: Any, required: list[str], **more: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": required, **more}
    return record_of("notes", schema, load(COMMON))


def test_the_files_are_what_the_schemas_say() -> None:
    """If not: ``make schemas``, or ``python -m tools records``."""
    expected = record_files()
    there = {path.relative_to(SCHEMAS) for name in ("avro", "protobuf") for path in (SCHEMAS / name).iterdir()}
    assert there == expected.keys()
    for path, text in expected.items():
        assert (SCHEMAS / path).read_text(encoding="utf-8") == text, path


@pytest.mark.parametrize("topic", RESULT_TOPICS)
def test_what_need_not_be_there_has_a_default_in_avro(topic: Topic) -> None:
    schema = orjson.loads(result_schema(topic, "avro").text)
    fastavro.parse_schema(orjson.loads(result_schema(topic, "avro").text))
    required = set(load(topic.value)["required"])
    assert {each["name"] for each in schema["fields"] if "default" not in each} == required
    assert schema["namespace"].startswith("el4ner.")


def test_released_field_numbers_are_still_the_same() -> None:
    now = orjson.loads((SCHEMAS / FIELD_NUMBERS).read_bytes())
    for kept in (SCHEMAS / "released").glob(f"*/{FIELD_NUMBERS}"):
        for topic, messages in orjson.loads(kept.read_bytes()).items():
            for message, fields in messages.items():
                assert fields.items() <= now[topic][message].items(), f"{kept}: {topic} {message}"


def test_a_number_is_of_one_field() -> None:
    for messages in orjson.loads((SCHEMAS / FIELD_NUMBERS).read_bytes()).values():
        for fields in messages.values():
            numbers = [field["number"] for field in fields.values()]
            assert len(set(numbers)) == len(numbers)


def test_a_new_field_gets_the_next_free_number_and_one_that_is_gone_keeps_its_own() -> None:
    text, whole = {"type": "string"}, {"type": "integer"}
    first = numbered(record({"a": text, "b": text}, ["a"]), {})
    assert first == {"Note": {"a": (1, "string"), "b": (2, "optional string")}}
    without = numbered(record({"a": text}, ["a"]), first)
    now = record({"c": whole, "a": text}, ["a"])
    numbers = numbered(now, without)
    assert numbers["Note"] == {"a": (1, "string"), "b": (2, "optional string"), "c": (3, "optional int64")}
    schema = protobuf_schema_text(now, "notes.v1", numbers)
    assert '  reserved 2;\n  reserved "b";\n  string a = 1;\n  optional int64 c = 3;\n' in schema
    compiled(RegisteredSchema("PROTOBUF", schema))


def test_a_field_of_another_type_is_another_field() -> None:
    first = numbered(record({"a": {"type": "array", "items": {"type": "string"}}}, []), {})
    assert first["NoteAList"] == {"items": (1, "repeated string")}
    with pytest.raises(FieldChangeError, match=r"NoteAList\.items was 'repeated string' and is 'repeated int64'"):
        numbered(record({"a": {"type": "array", "items": {"type": "integer"}}}, []), first)
    with pytest.raises(FieldChangeError, match=r"Note\.a was 'string' and is 'optional string'"):
        numbered(record({"a": {"type": "string"}}, []), numbered(record({"a": {"type": "string"}}, ["a"]), {}))


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": ["string", "null"]}, "notes/a: may be null and may be left out"),
        ({"type": ["string", "integer"]}, "notes/a: has 2 types"),
        ({"anyOf": [TEXT, {"type": "integer"}]}, "notes/a: anyOf is understood of one schema and null"),
        ({"oneOf": [TEXT]}, "notes/a: has 0 types"),
        ({"type": "array", "items": {"type": ["string", "null"]}}, "notes/a/items: may be null"),
        ({"type": "array", "prefixItems": [TEXT]}, "notes/a: an array needs one schema"),
        ({"type": "object", "additionalProperties": {"type": ["string", "null"]}}, r"notes/a/\*: may be null"),
        (
            {"type": "object", "properties": {"b": TEXT}, "additionalProperties": TEXT},
            "has known properties and others",
        ),
        ({"type": "object", "properties": {"b": TEXT}, "patternProperties": {}}, "notes/a: patternProperties"),
        ({"type": "object", "properties": {"not a name": TEXT}}, "notes/a/not a name: a field's name"),
        ({"type": "object", "properties": {"b": TEXT}, "required": ["c"]}, "requires c, of which nothing is known"),
        ({"type": "integer", "enum": [1, 2]}, "a list of values is understood of strings"),
        ({"$ref": "#/$defs/nowhere"}, "refers to #/\\$defs/nowhere"),
        ({"allOf": [TEXT, {"type": "integer"}]}, "has two types at once"),
    ],
)
def test_what_cannot_be_said_is_an_error_and_no_loss(schema: Any, said: str) -> None:
    with pytest.raises(InexpressibleError, match=said):
        record({"a": schema}, [])


def test_a_schema_that_contains_itself_and_two_forms_of_one_name_are_errors() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
    with pytest.raises(InexpressibleError, match="contains itself"):
        record({"a": {"$ref": "#/$defs/node"}}, ["a"], **{"$defs": {"node": node}})
    thing = {"type": "object", "properties": {"x": TEXT}}
    with pytest.raises(InexpressibleError, match="two forms of a record would be called NoteA"):
        record({"a": thing, "as": {"type": "array", "items": {"type": "object", "properties": {"y": TEXT}}}}, ["a"])


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "items": {"type": "array", "items": TEXT}}, "no lists or maps of lists or maps"),
        ({"type": "object", "additionalProperties": TEXT}, "does not tell an empty map from none"),
    ],
)
def test_what_protobuf_alone_cannot_say_is_an_error_too(schema: Any, said: str) -> None:
    with pytest.raises(InexpressibleError, match=said):
        message_fields(record({"a": schema}, []))
