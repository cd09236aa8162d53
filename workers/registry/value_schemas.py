"""Bodies of framed values as their schemas say: what a message that somebody else wrote has in it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import orjson
from typing_extensions import override

from el4ner.errors import MessageError
from workers.registry.avro_shape import AvroShapeError, needed_shape
from workers.registry.protobuf_compiler import ProtobufSchemaError, compiled
from workers.registry.protobuf_values import ProtobufValues
from workers.registry.registered_schema import RegisteredSchema
from workers.registry.value_schema import ValueSchema

__all__ = ["AvroValues", "JsonValues", "UnreadableValues", "value_schema"]

_LONGEST_REASON: Final = 500


class JsonValues(ValueSchema):
    """Values of a JSON Schema: they are JSON. What they have to be is asked by who reads them, not by their schema."""

    @override
    def read(self, body: bytes) -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise MessageError(f"what follows the frame of the registry is not JSON ({error})", code="json") from error


@dataclass(frozen=True, slots=True)
class UnreadableValues(ValueSchema):
    """Values that are not read, whatever is in them."""

    reason: str
    code: str

    @override
    def read(self, body: bytes) -> Any:
        raise MessageError(self.reason, code=self.code)


class AvroValues(ValueSchema):
    """Values that were written by an Avro schema. Logical types are left out: a ``timestamp-millis`` is a number, which
    ``kafka.revision_path`` can name.

    Raises:
        AvroShapeError: what it writes is not safe to read.
        fastavro.schema.SchemaParseException: it is no schema.
    """

    def __init__(self, schema: RegisteredSchema) -> None:
        # Imported here: who reads no Avro need not have it (el4ner[registry]).
        import fastavro

        self._reader = fastavro.schemaless_reader
        named: dict[str, Any] = {}
        for reference in schema.references:
            fastavro.parse_schema(_without_logical_types(orjson.loads(reference.text)), named_schemas=named)
        parsed = fastavro.parse_schema(_without_logical_types(orjson.loads(schema.text)), named_schemas=named)
        needed_shape(parsed, named)
        self._schema: Any = parsed

    @override
    def read(self, body: bytes) -> Any:
        stream = io.BytesIO(body)
        try:
            value = self._reader(stream, self._schema, None)
        except Exception as error:  # whatever its decoder stumbles over: IndexError, EOFError, OverflowError, …
            raise MessageError(
                f"the value is not what its Avro schema says: {type(error).__name__} at byte {stream.tell()} of what "
                "follows the frame",
                code="avro",
            ) from error
        if (rest := len(body) - stream.tell()) > 0:
            raise MessageError(
                f"the value is not what its Avro schema says: {rest:,} bytes are left behind it", code="avro"
            )
        return value


def value_schema(schema_id: int, schema: RegisteredSchema) -> ValueSchema:
    """How values of a registered schema are read. Of Protobuf it blocks while the schema is compiled.

    Raises:
        ModuleNotFoundError: it is Avro or Protobuf, and ``el4ner[registry]`` is not installed.
    """
    if schema.kind == "JSON":
        return JsonValues()
    name = schema.kind.capitalize()
    try:
        if schema.kind == "PROTOBUF":
            return ProtobufValues(compiled(schema))
        if schema.kind == "AVRO":
            return AvroValues(schema)
    except (ModuleNotFoundError, OSError):  # OSError: there is no room for the compiler's files
        raise
    except (AvroShapeError, ProtobufSchemaError) as error:
        reason = f"the {name} schema of the value (id {schema_id}) {error}"
        return UnreadableValues(reason[:_LONGEST_REASON], "schema-type")
    except Exception as error:  # of fastavro's and orjson's
        said = f"{type(error).__name__}: {error}"
        reason = f"the {name} schema of the value (id {schema_id}) cannot be understood: {said}"
        return UnreadableValues(reason[:_LONGEST_REASON], "schema-type")
    return UnreadableValues(
        f"the value is {name} (schema id {schema_id}), and el4ner reads Avro, JSON and Protobuf: have the producer "
        "write one of these, or convert the topic on the way",
        "schema-type",
    )


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_logical_types(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = ("type", "fields", "items", "values")
    return {
        key: _without_logical_types(value) if key in kept else value
        for key, value in schema.items()
        if key != "logicalType"
    }
