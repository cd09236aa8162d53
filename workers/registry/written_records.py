"""Values of record types, as JSON has them, made into what Avro's and Protobuf's writers take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from workers.registry.record_types import ListType, MapType, RecordType, ValueType

__all__ = ["Conversion", "RecordMaker", "written_values"]

Conversion = Callable[[Any], Any]
RecordMaker = Callable[[RecordType], Callable[[dict[str, Any]], Any]]
"""Of a record type: what makes a record of its fields. Those that are left out are not among them; null is None."""


def written_values(value: ValueType, maker: RecordMaker) -> Conversion:
    """From a value as JSON has it to what is written.

    What a record does not know is left out. The conversion raises ``ValueError`` where a property is missing, or null
    and not to be: it would be lost.
    """
    if isinstance(value, RecordType):
        return _record(value, maker)
    if isinstance(value, ListType):
        item = written_values(value.items, maker)
        return lambda data: [item(each) for each in data]
    if isinstance(value, MapType):
        inner = written_values(value.values, maker)
        return lambda data: {key: inner(each) for key, each in data.items()}
    return _CONVERSIONS[value.kind]


def _record(record: RecordType, maker: RecordMaker) -> Conversion:
    conversions = {field.name: (written_values(field.type, maker), field.required) for field in record.fields}
    required = [field.name for field in record.fields if field.required]
    make = maker(record)

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
        return make(converted)

    return convert


def _same(data: Any) -> Any:
    return data


def _json_text(data: Any) -> str:
    return orjson.dumps(data).decode()


_CONVERSIONS: Final[Mapping[str, Conversion]] = {
    "string": _same,
    "boolean": _same,
    # JSON Schema takes 5.0 for a whole number, and 5 for a number.
    "integer": int,
    "number": float,
    "json": _json_text,
}
