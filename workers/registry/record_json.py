"""Values of record types that were read from Avro or Protobuf, as JSON has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from el4ner.errors import MessageError
from workers.registry.protobuf_records import ITEMS, is_wrapped
from workers.registry.record_types import ListType, MapType, RecordType, ScalarType, ValueType

__all__ = ["json_of_record"]


def json_of_record(record: RecordType, data: Any) -> dict[str, Any]:
    """A record as JSON has it. What it has beside the record's fields is left out: a newer release wrote it.

    Whether it is what the topic's schema says is for the JSON Schema to judge.

    Raises:
        MessageError: ``schema``: it is no record, or the text of JSON in it is none.
    """
    if not isinstance(data, Mapping):
        raise MessageError(f"not a {record.name}: the schema in its frame is of something else", code="schema")
    found: dict[str, Any] = {}
    for field in record.fields:
        value = data.get(field.name)
        if value is not None:
            if is_wrapped(field) and isinstance(value, Mapping) and value.keys() == {ITEMS}:
                value = value[ITEMS]
            found[field.name] = _json(field.type, value)
        elif field.nullable:
            found[field.name] = None
    return found


def _json(kind: ValueType, value: Any) -> Any:
    if isinstance(kind, RecordType):
        return json_of_record(kind, value)
    if isinstance(kind, ListType) and isinstance(value, list):
        if isinstance(kind.items, ScalarType) and kind.items.kind != "json":
            return value
        return [_json(kind.items, each) for each in value]
    if isinstance(kind, MapType) and isinstance(value, Mapping):
        return {key: _json(kind.values, each) for key, each in value.items()}
    if isinstance(kind, ScalarType) and kind.kind == "json":
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise MessageError("a field that has to be the text of JSON is not", code="schema") from error
    return value
