"""Record types as a Protobuf schema (proto3), and values for its messages. Pure.

A field that JSON may leave out or have as null is ``optional``. Protobuf does not tell an empty list from none, so a
list that may be left out is in a message of its own. Numbers of fields are given: they are the same for ever.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from workers.registry.json_schema_records import InexpressibleError
from workers.registry.record_types import ListType, MapType, RecordField, RecordType, ScalarType, ValueType, records_in
from workers.registry.written_records import Conversion, written_values

__all__ = ["ITEMS", "FieldNumbers", "is_wrapped", "message_fields", "protobuf_schema_text", "protobuf_values"]

FieldNumbers = Mapping[str, Mapping[str, tuple[int, str]]]
"""Of each message its fields' numbers and types, those that are gone included."""
ITEMS: Final = "items"
"""The field of a list that is in a message of its own."""
_SCALARS: Final[Mapping[str, str]] = {
    "string": "string",
    "integer": "int64",
    "number": "double",
    "boolean": "bool",
    "json": "string",
}
_WIDTH: Final = 118


def is_wrapped(field: RecordField) -> bool:
    """Whether a list is in a message of its own, since it may be left out."""
    return isinstance(field.type, ListType) and not _is_always_there(field)


def message_fields(record: RecordType) -> dict[str, dict[str, str]]:
    """All messages of the schema with the types of their fields, as it has them.

    Raises:
        InexpressibleError: a list or map is directly in another one, or a map may be left out.
    """
    records = records_in(record).values()
    fields = {each.name: {field.name: _field_type(each, field) for field in each.fields} for each in records}
    for each in records:
        for field in each.fields:
            if is_wrapped(field):
                name = _wrapper_name(each, field)
                if name in fields:
                    raise InexpressibleError(f"{each.name}.{field.name}: another message is called {name} too")
                fields[name] = {ITEMS: _type(field.type, f"{each.name}.{field.name}")}
    return fields


def _is_always_there(field: RecordField) -> bool:
    return field.required and not field.nullable


def _wrapper_name(record: RecordType, field: RecordField) -> str:
    return record.name + "".join(part.capitalize() for part in field.name.split("_")) + "List"


def _field_type(record: RecordType, field: RecordField) -> str:
    if is_wrapped(field):
        return f"optional {_wrapper_name(record, field)}"
    place = f"{record.name}.{field.name}"
    if _is_always_there(field):
        return _type(field.type, place)
    if isinstance(field.type, MapType):
        raise InexpressibleError(f"{place}: Protobuf does not tell an empty map from none: let it always be there")
    return f"optional {_type(field.type, place)}"


def _type(value: ValueType, place: str) -> str:
    if isinstance(value, ScalarType):
        return _SCALARS[value.kind]
    if isinstance(value, RecordType):
        return value.name
    inner = value.items if isinstance(value, ListType) else value.values
    if isinstance(inner, ListType | MapType):
        raise InexpressibleError(f"{place}: Protobuf has no lists or maps of lists or maps")
    return f"repeated {_type(inner, place)}" if isinstance(value, ListType) else f"map<string, {_type(inner, place)}>"


def protobuf_schema_text(record: RecordType, package: str, numbers: FieldNumbers) -> str:
    """The schema as a file, the topic's message first: message indexes tell it by its place.

    Raises:
        InexpressibleError: a list or map is directly in another one.
    """
    records = records_in(record)
    blocks = [_message(each, numbers[each.name]) for each in records.values()]
    blocks += [wrapper for each in records.values() for wrapper in _wrappers(each, numbers)]
    head = f'syntax = "proto3";\n\npackage {package};\n\noption java_multiple_files = true;\n'
    return "\n".join([head, *blocks])


def _message(record: RecordType, numbers: Mapping[str, tuple[int, str]]) -> str:
    lines = [*_comment(record.doc, ""), f"message {record.name} {{"]
    gone = sorted((number, name) for name, (number, _) in numbers.items() if name not in _names(record))
    if gone:
        lines.append(f"  reserved {', '.join(str(number) for number, _ in gone)};")
        lines.append("  reserved " + ", ".join(f'"{name}"' for _, name in gone) + ";")
    for field in sorted(record.fields, key=lambda each: numbers[each.name][0]):
        lines += _comment(field.doc_of_text, "  ")
        lines.append(f"  {_field_type(record, field)} {field.name} = {numbers[field.name][0]};")
    return "\n".join([*lines, "}", ""])


def _wrappers(record: RecordType, numbers: FieldNumbers) -> Iterator[str]:
    for field in record.fields:
        if is_wrapped(field):
            name = _wrapper_name(record, field)
            number, kind = numbers[name][ITEMS]
            comment = _comment(f"{field.name} of {record.name}, where it is there.", "")
            yield "\n".join([*comment, f"message {name} {{", f"  {kind} {ITEMS} = {number};", "}", ""])


def _names(record: RecordType) -> set[str]:
    return {field.name for field in record.fields}


def _comment(doc: str, indent: str) -> list[str]:
    lines = textwrap.wrap(re.sub(r"\s+", " ", doc), _WIDTH - len(indent) - 3, break_long_words=False)
    return [f"{indent}// {line}" for line in lines]


def protobuf_values(record: RecordType, classes: Mapping[str, Any]) -> Conversion:
    """From a value as JSON has it to a message of :func:`protobuf_schema_text`; see :func:`written_values`.
    ``classes``: of messages, by name."""

    def maker(each: RecordType) -> Conversion:
        make = classes[each.name]
        wrappers = {field.name: classes[_wrapper_name(each, field)] for field in each.fields if is_wrapped(field)}

        def message(fields: dict[str, Any]) -> Any:
            there = {name: value for name, value in fields.items() if value is not None}
            return make(
                **{name: wrappers[name](items=value) if name in wrappers else value for name, value in there.items()}
            )

        return message

    return written_values(record, maker)
