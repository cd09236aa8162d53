"""What others read, as Avro and Protobuf: the schemas' files, and values of results as JSON again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from el4ner.serialize import dumps
from workers.messages import json_schemas
from workers.registry.bundled_schemas import bundled
from workers.registry.json_schema_records import record_of
from workers.registry.protobuf_records import FieldNumbers
from workers.registry.record_json import json_of_record
from workers.registry.record_types import RecordType
from workers.registry.registered_schema import RegisteredSchema
from workers.topics import Topic

__all__ = [
    "FIELD_NUMBERS",
    "RESULT_TOPICS",
    "FramedFormat",
    "avro_file",
    "json_of_result",
    "namespace_of",
    "numbers_of",
    "protobuf_file",
    "result_record",
    "result_schema",
]

RESULT_TOPICS: Final = (
    Topic.TAGGED_DOCUMENTS,
    Topic.ENTITY_MENTIONS,
    Topic.REDACTED_DOCUMENTS,
    Topic.ENTITIES,
    Topic.ENTITY_TRENDS,
)
"""What others read: their values are written as ``kafka.value_format`` says."""
FramedFormat = Literal["json-schema", "avro", "protobuf"]
"""Of ``kafka.value_format`` those whose values have a registry's frame."""
FIELD_NUMBERS: Final = Path("protobuf/field-numbers.json")
"""Under ``schemas/``."""


def namespace_of(topic: Topic) -> str:
    """Where a topic's records are named: the namespace in Avro, the package in Protobuf."""
    return f"el4ner.{topic.value.replace('-', '_')}.v1"


def avro_file(topic: Topic) -> Path:
    """Its Avro schema, under ``schemas/``."""
    return Path(f"avro/{topic.value}.v1.avsc")


def protobuf_file(topic: Topic) -> Path:
    """Its Protobuf schema, under ``schemas/``."""
    return Path(f"protobuf/{topic.value}.v1.proto")


def numbers_of(kept: Mapping[str, Any], topic: Topic) -> FieldNumbers:
    """A topic's field numbers, by the content of their file."""
    return {
        message: {name: (field["number"], field["type"]) for name, field in fields.items()}
        for message, fields in kept.get(topic.value, {}).items()
    }


@cache
def result_record(topic: Topic) -> RecordType:
    """The record of a topic's values."""
    return record_of(topic.value, json_schemas.load(topic.value), json_schemas.load(json_schemas.COMMON))


@cache
def result_schema(topic: Topic, value_format: FramedFormat) -> RegisteredSchema:
    """The schema of a topic's values as it is registered."""
    if value_format == "json-schema":
        schema = bundled(json_schemas.load(topic.value), json_schemas.load(json_schemas.COMMON))
        return RegisteredSchema("JSON", dumps(schema).decode())
    folder = json_schemas.schemas_dir()
    if value_format == "avro":
        # Without the spaces of the file.
        return RegisteredSchema("AVRO", dumps(orjson.loads((folder / avro_file(topic)).read_bytes())).decode())
    return RegisteredSchema("PROTOBUF", (folder / protobuf_file(topic)).read_text(encoding="utf-8"))


def json_of_result(topic: Topic, kind: str, data: Any) -> Any:
    """What was read of a value by a registered schema of that kind, as JSON has it.

    Raises:
        MessageError: ``schema``: it is something else.
    """
    return data if kind == "JSON" else json_of_record(result_record(topic), data)
