"""Results in a registry's frame: values that name the schema which they are written by (``kafka.value_format``).

What others read is framed: tagged documents, mentions, redacted documents, entities and their trends, as JSON, Avro or
Protobuf. What workers tell each other stays plain JSON. Dead letters are what they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from el4ner.extras import extras_explained
from workers.backoff import Backoff
from workers.config import KafkaSettings
from workers.messages.envelope import Outgoing
from workers.messages.result_encoding import CONTENT_TYPES, ResultEncoder, result_encoder
from workers.messages.result_schemas import FramedFormat, result_schema
from workers.registry.known_schemas import REGISTRY_EXTRAS
from workers.registry.outages import answer_of
from workers.registry.registered_schema import RegisteredSchema
from workers.registry.wire_format import framed
from workers.roles import AGGREGATE, ENTITIES, PIPELINE, REDACT
from workers.topics import Topic, topic_name

__all__ = ["NO_FRAMES", "SchemaRegistrar", "TopicFrame", "ValueFrames", "registered_frames"]

_JOINED: Final = (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS)
_RESULTS: Final[Mapping[str, tuple[Topic, ...]]] = {
    AGGREGATE: _JOINED,
    PIPELINE: _JOINED,
    REDACT: (Topic.REDACTED_DOCUMENTS,),
    ENTITIES: (Topic.ENTITIES, Topic.ENTITY_TRENDS),
}


class SchemaRegistrar(Protocol):
    """What schemas are registered with: :class:`workers.registry.registry_client.RegistryClient`."""

    def register(self, subject: str, schema: RegisteredSchema) -> int:
        """The id of a schema, now registered. Raises ``ConfigError`` or ``RegistryAwayError``."""
        ...


@dataclass(frozen=True, slots=True)
class TopicFrame:
    """How values of a topic are written. ``content_type``: what the headers say of what is behind the frame."""

    schema_id: int
    content_type: bytes = CONTENT_TYPES["json-schema"]
    encode: ResultEncoder | None = None
    """None: the JSON as it is."""


@dataclass(frozen=True, slots=True)
class ValueFrames:
    """How topics' values are framed; those of topics that are not in it are not."""

    topics: Mapping[Topic, TopicFrame] = field(default_factory=dict)

    def framed(self, message: Outgoing) -> Outgoing:
        """The message as it is sent. A deletion has no frame."""
        frame = self.topics.get(message.topic) if isinstance(message.topic, Topic) else None
        if frame is None or message.value is None:
            return message
        if frame.encode is None:
            return replace(message, value=framed(frame.schema_id, message.value))
        headers = tuple(
            (name, frame.content_type if name == _CONTENT_TYPE else value) for name, value in message.headers
        )
        return replace(message, value=framed(frame.schema_id, frame.encode(message.value)), headers=headers)


_CONTENT_TYPE: Final = "content-type"
NO_FRAMES: Final = ValueFrames()


async def registered_frames(
    settings: KafkaSettings, stages: Collection[str], backoff: Backoff, registrar: SchemaRegistrar | None = None
) -> ValueFrames:
    """The frames of what these stages write. Their schemas are registered, each under ``TOPIC-value``, as the subject's
    compatibility allows; a registry that is away is waited for.

    ``registrar``: None: the registry of the settings.

    Raises:
        ConfigError: the registry refuses a schema, or ``el4ner[registry]`` is not installed.
    """
    topics = [topic for stage in stages for topic in _RESULTS.get(stage, ())]
    if settings.value_format == "json" or not topics:
        return NO_FRAMES
    if registrar is not None:
        value_format = settings.value_format
        return ValueFrames({topic: await _frame(settings, topic, value_format, backoff, registrar) for topic in topics})
    with extras_explained("kafka.value_format", REGISTRY_EXTRAS):
        # Imported here: who frames nothing need not have it.
        from workers.registry.registry_client import RegistryClient
    client = RegistryClient.of(settings.registry)
    try:
        return await registered_frames(settings, stages, backoff, client)
    finally:
        client.close()


async def _frame(
    settings: KafkaSettings, topic: Topic, value_format: FramedFormat, backoff: Backoff, registrar: SchemaRegistrar
) -> TopicFrame:
    subject, schema = f"{topic_name(settings, topic)}-value", result_schema(topic, value_format)
    encode = None
    if value_format != "json-schema":
        with extras_explained("kafka.value_format", REGISTRY_EXTRAS):
            encode = await asyncio.to_thread(result_encoder, topic, value_format)
    schema_id = await answer_of(
        lambda: registrar.register(subject, schema), backoff.seconds, "workers", subject=subject
    )
    return TopicFrame(schema_id, CONTENT_TYPES[value_format], encode)
