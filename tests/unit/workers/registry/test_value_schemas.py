"""Values as their registered schemas say."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from el4ner.errors import MessageError
from workers.registry.registered_schema import RegisteredSchema, SchemaReference
from workers.registry.value_schemas import value_schema

CHANGE = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.articles",
    "fields": [
        {
            "name": "after",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Value",
                    "fields": [
                        {"name": "id", "type": "long"},
                        {"name": "body", "type": {"type": "string", "avro.java.string": "String"}},
                        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
                        {"name": "raw", "type": ["null", "bytes"], "default": None},
                    ],
                },
            ],
        },
        {"name": "before", "type": ["null", "Value"]},
        {"name": "ts_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
"""As Debezium and Confluent's converter write them."""

ROWS = st.none() | st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "body": st.text(),
        "tags": st.lists(st.text(), max_size=3),
        "raw": st.none() | st.binary(max_size=5),
    }
)


def avro(schema: Any, *references: Any) -> Any:
    named = tuple(SchemaReference(each["name"], json.dumps(each)) for each in references)
    return value_schema(7, RegisteredSchema("AVRO", json.dumps(schema), named))


def written(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def refused(values: Any, body: bytes) -> str:
    with pytest.raises(MessageError) as error:
        values.read(body)
    return f"{error.value.code}: {error.value}"


@given(ROWS, ROWS, st.integers(0, 2**53))
def test_change_events_are_read_as_they_were_written(after: Any, before: Any, ms: int) -> None:
    change = {"after": after, "before": before, "ts_ms": ms}
    assert avro(CHANGE).read(written(CHANGE, change)) == change


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_read_or_refused(body: bytes) -> None:
    with suppress(MessageError):
        avro(CHANGE).read(body)


@pytest.mark.parametrize("change", [lambda body: body[:-3], lambda body: body + b"\0", lambda body: b"\x08" + body])
def test_what_another_schema_has_written_is_refused(change: Any) -> None:
    body = written(CHANGE, {"after": {"id": 1, "body": "Ada"}, "before": None, "ts_ms": 5})
    assert "avro: the value is not what its Avro schema says" in refused(avro(CHANGE), change(body))


def test_references_are_followed() -> None:
    city = {"type": "record", "name": "City", "namespace": "geo", "fields": [{"name": "name", "type": "string"}]}
    place = {"type": "record", "name": "Place", "namespace": "geo", "fields": [{"name": "city", "type": "geo.City"}]}
    whole = {"type": "record", "name": "W", "fields": [{"name": "at", "type": "geo.Place"}]}
    assert avro(whole, city, place).read(b"\x08Oslo") == {"at": {"city": {"name": "Oslo"}}}


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


def records(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


def empties(kind: str, count: int) -> dict[str, Any]:
    """Records that take few bytes, and have many fields."""
    return records(first=kind, **{f"n{number}": "null" for number in range(count)})


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (NODE, "has Node inside of Node"),  # a long enough value of it ends the process
        ({"type": "array", "items": "null"}, "an array of what takes no bytes"),
        ({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}, "an array of what takes no bytes"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": -1}}, "an array of what takes no bytes"),
        ({"type": "array", "items": empties("int", 101)}, "more than 100 values that take no bytes"),
        ({"type": "array", "items": ["null", empties("null", 300)]}, "more than 100 values that take no bytes"),
        ({"type": "map", "values": empties("int", 201)}, "more than 100 values that take no bytes"),
        (records(**{"f" * 256: "int"}), "a name of more than 255 characters"),
        ({"type": "enum", "name": "E", "symbols": ["a", "E" * 256]}, "a name of more than 255 characters"),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "Nowhere"}]}, "cannot be understood"),
    ],
)
def test_schemas_that_are_not_safe_to_read_are_refused(schema: Any, said: str) -> None:
    assert said in refused(avro(schema), b"\x02" * 100_000)


def test_some_values_that_take_no_bytes_are_read() -> None:
    schema = {"type": "array", "items": empties("int", 3)}
    value = [{"first": number, "n0": None, "n1": None, "n2": None} for number in range(500)]
    assert avro(schema).read(written(schema, value)) == value
    wide = {"type": "array", "items": records(**{f"f{number}": ["null", "string"] for number in range(300)})}
    assert avro(wide).read(b"\x00") == []


def test_a_schema_of_exponentially_many_parts_is_refused_at_once() -> None:
    schema: Any = {"type": "record", "name": "R0", "fields": []}
    for number in range(1, 40):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"R{number - 1}"}]
        schema = {"type": "record", "name": f"R{number}", "fields": fields}
    assert "more than 10,000 parts" in refused(avro(schema), b"")


def test_other_kinds_and_broken_json_say_what_they_are() -> None:
    other = value_schema(9, RegisteredSchema("THRIFT", "struct A {}"))
    assert refused(other, b"\0\x0a").startswith("schema-type: the value is Thrift (schema id 9)")
    values = value_schema(9, RegisteredSchema("JSON", "{}"))
    assert values.read(b'{"a": 1}') == {"a": 1}
    assert refused(values, b"{").startswith("json: what follows the frame")
