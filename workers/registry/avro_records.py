"""Record types as an Avro schema, and values for fastavro. Pure.

A field that JSON may leave out is a union with null whose default is null; one that JSON has as null is such a union
without a default. So readers of older and newer schemas understand each other, and nothing is lost on the way back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workers.registry.record_types import ListType, MapType, RecordField, RecordType, ScalarType, ValueType
from workers.registry.written_records import Conversion, written_values

__all__ = ["avro_schema", "avro_schema_text", "avro_values"]

_SCALARS: Mapping[str, str] = {
    "string": "string",
    "integer": "long",
    "number": "double",
    "boolean": "boolean",
    "json": "string",
}


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
    doc = field.doc_of_text
    described = {"name": field.name, **({"doc": doc} if doc else {})}
    if field.required:
        return {**described, "type": ["null", kind] if field.nullable else kind}
    return {**described, "type": ["null", kind], "default": None}


def avro_values(value: ValueType) -> Conversion:
    """From a value as JSON has it to what fastavro writes by :func:`avro_schema`; see :func:`written_values`."""
    return written_values(value, lambda _record: lambda fields: fields)
