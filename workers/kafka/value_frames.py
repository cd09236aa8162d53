"""Results in a registry's frame: values that name the schema which they are written by (``kafka.value_format``).

What others read is framed: tagged documents, mentions, redacted documents, entities and their trends. What workers tell
each other stays plain JSON. Dead letters are what they were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from el4ner.extras import extras_explained
from el4ner.serialize import dumps
from workers.backoff import Backoff
from workers.config import KafkaSettings
from workers.messages import json_schemas
from workers.messages.envelope import Outgoing
from workers.registry.bundled_schemas import bundled
from workers.registry.outages import answer_of
from workers.registry.wire_format import framed
from workers.roles import AGGREGATE, ENTITIES, PIPELINE, REDACT
from workers.topics import Topic, topic_name

__all__ = ["NO_FRAMES", "SchemaRegistrar", "ValueFrames", "registered_frames", "registered_schema_of"]

_JOINED: Final = (Topic.TAGGED_DOCUMENTS, Topic.ENTITY_MENTIONS)
_RESULTS: Final[Mapping[str, tuple[Topic, ...]]] = {
    AGGREGATE: _JOINED,
    PIPELINE: _JOINED,
    REDACT: (Topic.REDACTED_DOCUMENTS,),
    ENTITIES: (Topic.ENTITIES, Topic.ENTITY_TRENDS),
}


class SchemaRegistrar(Protocol):
    """What schemas are registered with: :class:`workers.registry.registry_client.RegistryClient`."""

    def register(self, subject: str, schema: str) -> int:
        """The id of a JSON Schema, now registered. Raises ``ConfigError`` or ``RegistryAwayError``."""
        ...


@dataclass(frozen=True, slots=True)
class ValueFrames:
    """The ids of the schemas that topics' values are written by; topics that are not in it have no frames."""

    ids: Mapping[Topic, int] = field(default_factory=dict)

    def framed(self, message: Outgoing) -> Outgoing:
        """The message as it is sent. A deletion has no frame."""
        schema_id = self.ids.get(message.topic) if isinstance(message.topic, Topic) else None
        if schema_id is None or message.value is None:
            return message
        return replace(message, value=framed(schema_id, message.value))


NO_FRAMES: Final = ValueFrames()


def registered_schema_of(topic: Topic) -> str:
    """The schema of a topic's values as it is registered."""
    return dumps(bundled(json_schemas.load(topic.value), json_schemas.load("common"))).decode()


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
        return ValueFrames({topic: await _registered(settings, topic, backoff, registrar) for topic in topics})
    with extras_explained("kafka.value_format", {"httpx": "registry"}):
        # Imported here: who frames nothing need not have it.
        from workers.registry.registry_client import RegistryClient
    client = RegistryClient.of(settings.registry)
    try:
        return await registered_frames(settings, stages, backoff, client)
    finally:
        client.close()


async def _registered(settings: KafkaSettings, topic: Topic, backoff: Backoff, registrar: SchemaRegistrar) -> int:
    subject, schema = f"{topic_name(settings, topic)}-value", registered_schema_of(topic)
    return await answer_of(lambda: registrar.register(subject, schema), backoff.seconds, "workers", subject=subject)
