"""Avro and Protobuf schemas of what others read, made from the JSON Schemas: ``python -m tools records``.

A Protobuf field has its number for ever, also after it is gone: ``schemas/protobuf/field-numbers.json`` keeps them. A
new field gets the next free one. A field whose type changes is another field, so it is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from workers.messages.json_schemas import COMMON, load, schemas_dir
from workers.messages.result_schemas import (
    FIELD_NUMBERS,
    RESULT_TOPICS,
    avro_file,
    namespace_of,
    numbers_of,
    protobuf_file,
)
from workers.registry.avro_records import avro_schema_text
from workers.registry.json_schema_records import record_of
from workers.registry.protobuf_records import FieldNumbers, message_fields, protobuf_schema_text
from workers.registry.record_types import RecordType

__all__ = ["FieldChangeError", "numbered", "record_files", "write_record_files"]


class FieldChangeError(ValueError):
    """A Protobuf field that has a number has another type now."""


def numbered(record: RecordType, known: FieldNumbers) -> dict[str, dict[str, tuple[int, str]]]:
    """The numbers of a record's messages: the known ones, and the next free ones for what is new.

    Raises:
        FieldChangeError: a field has another type than the one that its number was given for.
    """
    numbers = {message: dict(fields) for message, fields in known.items()}
    for message, fields in message_fields(record).items():
        given = numbers.setdefault(message, {})
        for name, kind in fields.items():
            if name not in given:
                given[name] = (1 + max((number for number, _ in given.values()), default=0), kind)
            elif given[name][1] != kind:
                raise FieldChangeError(
                    f"{message}.{name} was {given[name][1]!r} and is {kind!r}: a Protobuf field keeps its type. Give "
                    "what is new another name"
                )
    return numbers


def record_files(known: Mapping[str, Any] | None = None) -> dict[Path, str]:
    """What the files have to be, by their paths under ``schemas/``. ``known``: the content of the file of numbers.

    Raises:
        InexpressibleError: a schema has something that Avro or Protobuf cannot say.
        FieldChangeError: a Protobuf field has another type.
    """
    kept = schemas_dir() / FIELD_NUMBERS
    if known is None:
        known = orjson.loads(kept.read_bytes()) if kept.exists() else {}
    files: dict[Path, str] = {}
    numbers: dict[str, Any] = {}
    for topic in RESULT_TOPICS:
        record = record_of(topic.value, load(topic.value), load(COMMON))
        given = numbered(record, numbers_of(known, topic))
        numbers[topic.value] = {
            message: {name: {"number": number, "type": kind} for name, (number, kind) in fields.items()}
            for message, fields in given.items()
        }
        files[avro_file(topic)] = avro_schema_text(record, namespace_of(topic))
        files[protobuf_file(topic)] = protobuf_schema_text(record, namespace_of(topic), given)
    files[FIELD_NUMBERS] = json.dumps(numbers, indent=2) + "\n"
    return files


def write_record_files() -> None:
    """Write them."""
    for path, text in record_files().items():
        whole = schemas_dir() / path
        whole.parent.mkdir(exist_ok=True)
        whole.write_text(text, encoding="utf-8")
