"""Record types as an Avro schema, and values for fastavro. Pure.

A field that JSON may leave out is a union with null whose default is null; one that JSON has as null is such a union
without a default. So readers of older and newer schemas understand each other, and nothing is lost on the way back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from workers.registry.record_types import ListType, MapType, RecordField, RecordType, ScalarType, ValueType

__all__ = ["avro_schema", "avro_schema_text", "avro_values", "json_text"]

_SCALARS: Mapping[str, str] = {
    "string": "string",
    "integer": "long",
    "number": "double",
    "boolean": "boolean",
    "json": "string",
}

Conversion = Callable[[Any], Any]


def avro_schema(record: RecordType, namespace: str) -> dict[str, Any]:
    """The schema of a topic's values."""
    schema = _type(record, set())
    return {"type": "record", "name": schema.pop("name"), "namespace": namespace, **schema}


def avro_schema_text(record: RecordType, namespace: str) -> str:
    """The schema as a file."""
    return json.dumps(avro_schema(record, namespace), indent=2, ensure_ascii=False) + "\n"


def _type(value: ValueType, defined: set[str]) -> Any:
    if isinstance(value, ScalarType):
        return _SCALARS[value.kind]
    if isinstance(value, ListType):
        return {"type": "array", "items": _type(value.items, defined)}
    if isinstance(value, MapType):
        return {"type": "map", "values": _type(value.values, defined)}
    if value.name in defined:
        return value.name
    defined.add(value.name)
    return {
        "type": "record",
        "name": value.name,
        **({"doc": value.doc} if value.doc else {}),
        "fields": [_field(field, defined) for field in value.fields],
    }


def _field(field: RecordField, defined: set[str]) -> dict[str, Any]:
    kind = _type(field.type, defined)
    doc = field.doc
    if isinstance(field.type, ScalarType) and field.type.kind == "json":
        doc = f"{doc} As the text of its JSON.".strip()
    described = {"name": field.name, **({"doc": doc} if doc else {})}
    if field.required:
        return {**described, "type": ["null", kind] if field.nullable else kind}
    return {**described, "type": ["null", kind], "default": None}


def avro_values(value: ValueType) -> Conversion:
    """From a value as JSON has it to what fastavro writes by :func:`avro_schema`.

    What the record does not know is left out. The conversion raises ``ValueError`` where a property is missing, or null
    and not to be: it would be lost.
    """
    if isinstance(value, RecordType):
        return _record(value)
    if isinstance(value, ListType):
        item = avro_values(value.items)
        return lambda data: [item(each) for each in data]
    if isinstance(value, MapType):
        inner = avro_values(value.values)
        return lambda data: {key: inner(each) for key, each in data.items()}
    return _CONVERSIONS[value.kind]


def _record(record: RecordType) -> Conversion:
    conversions = {field.name: (avro_values(field.type), field.required) for field in record.fields}
    required = [field.name for field in record.fields if field.required]

    def convert(data: Any) -> Any:
        converted: dict[str, Any] = {}
        for name, each in data.items():
            if name not in conversions:
                continue  # a worker of a newer release has put it into its answer: whoever reads it passes over it too
            conversion, needed = conversions[name]
            if each is None and not needed:
                raise ValueError(f"{record.name}: {name!r} is null, which is for leaving it out")
            converted[name] = None if each is None else conversion(each)
        for name in required:
            if name not in converted:
                raise ValueError(f"{record.name} needs {name!r}")
        return converted

    return convert


def _same(data: Any) -> Any:
    return data


def json_text(data: Any) -> str:
    """Anything as the text of its JSON."""
    return orjson.dumps(data).decode()


_CONVERSIONS: Mapping[str, Conversion] = {
    "string": _same,
    "boolean": _same,
    # JSON Schema takes 5.0 for a whole number, and 5 for a number.
    "integer": int,
    "number": float,
    "json": json_text,
}
