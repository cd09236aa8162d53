"""Results as they are read again, whatever ``kafka.value_format`` was when they were written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from el4ner.errors import MessageError
from el4ner.extras import extras_explained
from el4ner.serialize import dumps
from workers.config import KafkaSettings
from workers.messages.result_schemas import json_of_result
from workers.registry.known_schemas import REGISTRY_EXTRAS, KnownSchemas, SchemaSource
from workers.registry.registered_schema import RegisteredSchema
from workers.registry.value_schema import ValueSchema
from workers.registry.value_schemas import value_schema
from workers.registry.wire_format import split_frame
from workers.topics import Topic

__all__ = ["ResultReading", "has_json", "result_values"]


def has_json(body: bytes) -> bool:
    """Whether what follows a frame is JSON, of a result: no record of ours begins so in Avro (it would be a text of a
    negative length), nor in Protobuf (of which the first message of a file begins with a zero)."""
    return body[:1] == b"{"


@dataclass(frozen=True, slots=True)
class _ResultValues(ValueSchema):
    topic: Topic
    kind: str
    values: ValueSchema

    @override
    def read(self, body: bytes) -> Any:
        return json_of_result(self.topic, self.kind, self.values.read(body))


def result_values(topic: Topic) -> Callable[[int, RegisteredSchema], ValueSchema]:
    """How values of a registered schema are read on a topic of results: as JSON has them."""
    return lambda schema_id, schema: _ResultValues(topic, schema.kind, value_schema(schema_id, schema))


class ResultReading:
    """Values of one topic as plain JSON. For programs and the command line: it blocks where a schema is asked for.

    Args:
        settings: where the registry is; it is not asked before a value needs it.
        source: asked instead of it.
    """

    def __init__(self, settings: KafkaSettings, topic: Topic, source: SchemaSource | None = None) -> None:
        self._settings = settings
        self._topic = topic
        self._schemas = None if source is None else KnownSchemas(source, read_by=result_values(topic))

    def needs_schema(self, value: bytes | None) -> bool:
        """Whether :meth:`json` does more than give it back."""
        frame = None if value is None else split_frame(value)
        return frame is not None and not has_json(frame.body)

    def json(self, value: bytes) -> bytes:
        """The value as JSON. One that is JSON, or nothing that is known, is given back as it is.

        Raises:
            MessageError: it is not what the schema of its frame says.
            RegistryAwayError: the registry does not say what the schema is.
            ConfigError: a file of ``kafka.registry`` cannot be used, or ``el4ner[registry]`` is not installed.
        """
        frame = split_frame(value)
        if frame is None or has_json(frame.body):
            return value
        schemas = self._schemas or self._opened()
        if schemas is None:
            return value
        schema = schemas.known(frame.schema_id) or schemas.ask(frame.schema_id)
        data = schema.read(frame.body)
        try:
            return dumps(data)
        except (TypeError, ValueError) as error:  # bytes, or a number that JSON does not know
            raise MessageError(f"not a {self._topic.value} message: {error}", code="schema") from error

    def _opened(self) -> KnownSchemas | None:
        if self._settings.registry.url is None:
            return None
        with extras_explained("kafka.registry.url", REGISTRY_EXTRAS):
            # Imported here: who reads plain JSON need not have it.
            from workers.registry.registry_client import RegistryClient
        client = RegistryClient.of(self._settings.registry)
        self._schemas = KnownSchemas(client, read_by=result_values(self._topic))
        return self._schemas

    def close(self) -> None:
        """Nothing more is asked."""
        if self._schemas is not None:
            self._schemas.close()
            self._schemas = None
