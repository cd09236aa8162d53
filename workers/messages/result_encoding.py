"""Results as they stand behind a registry's frame (``kafka.value_format``): JSON, Avro or Protobuf."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from workers.messages.result_schemas import FramedFormat, result_record, result_schema
from workers.registry.avro_records import avro_values
from workers.registry.protobuf_compiler import compiled
from workers.registry.protobuf_records import protobuf_values
from workers.topics import Topic

__all__ = ["CONTENT_TYPES", "ResultEncoder", "result_encoder"]

ResultEncoder = Callable[[bytes], bytes]
"""From a value that is JSON to what follows the frame."""
CONTENT_TYPES: Final[Mapping[FramedFormat, bytes]] = {
    "json-schema": b"application/json",
    "avro": b"application/avro",
    "protobuf": b"application/protobuf",
}
"""What the header ``content-type`` says."""
_FIRST_MESSAGE: Final = b"\0"
"""Which message of its file a value is, as Confluent's serializers say it: the topic's is the first."""


def result_encoder(topic: Topic, value_format: FramedFormat) -> ResultEncoder:
    """How values of a topic are written. Of Protobuf it blocks for a second, since its schema is compiled.

    The encoder leaves out properties that the topic's schema does not know, and raises ``ValueError`` for what is not
    as it says: it would be lost.

    Raises:
        ModuleNotFoundError: ``el4ner[registry]`` is not installed.
    """
    if value_format == "json-schema":
        return lambda value: value
    return _avro(topic) if value_format == "avro" else _protobuf(topic)


def _avro(topic: Topic) -> ResultEncoder:
    # Imported here: who writes no Avro need not have it (el4ner[registry]).
    import fastavro

    schema = fastavro.parse_schema(orjson.loads(result_schema(topic, "avro").text))
    convert = avro_values(result_record(topic))

    def encode(value: bytes) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, convert(orjson.loads(value)))
        return out.getvalue()

    return encode


def _protobuf(topic: Topic) -> ResultEncoder:
    convert = protobuf_values(result_record(topic), compiled(result_schema(topic, "protobuf")).message_classes())

    def encode(value: bytes) -> bytes:
        # The same value is the same bytes, which maps alone would not be.
        message: bytes = convert(orjson.loads(value)).SerializeToString(deterministic=True)
        return _FIRST_MESSAGE + message

    return encode
