"""The schemas of messages that come in a registry's frame, asked for before the messages are read.

A message waits here, unread and unfinished, while the registry is away: it is lost by no outage, and no dead letter
either. Each schema is asked for once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Self

from el4ner.extras import extras_explained
from workers.backoff import Backoff
from workers.config import KafkaSettings
from workers.messages.envelope import Record
from workers.messages.result_reading import has_json, result_values
from workers.registry.known_schemas import REGISTRY_EXTRAS, KnownSchemas, SchemaSource
from workers.registry.outages import answer_of
from workers.registry.value_schema import ValueSchema
from workers.registry.value_schemas import value_schema
from workers.registry.wire_format import split_frame
from workers.topics import Topic

__all__ = ["DocumentSchemas", "SchemaSource"]


class DocumentSchemas:
    """How framed values are read, by the id in their frame.

    Args:
        source: asked on threads, about one schema at a time.
        topic: ``documents``, whose values others write; or one of the results, whose values are read as JSON has them,
            and of which those that are JSON name no schema.
        wait: seconds before the n-th retry.
        clock: seconds, of any beginning.
    """

    def __init__(
        self,
        source: SchemaSource,
        *,
        topic: Topic = Topic.DOCUMENTS,
        wait: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = topic is not Topic.DOCUMENTS
        read_by = result_values(topic) if self._own else value_schema
        self._schemas = KnownSchemas(source, read_by=read_by, clock=clock)
        self._wait = wait

    @classmethod
    def of(cls, settings: KafkaSettings, backoff: Backoff, topic: Topic = Topic.DOCUMENTS) -> Self | None:
        """As the settings say; None: they name no registry.

        Raises:
            ConfigError: ``el4ner[registry]`` is not installed, or a file of the settings cannot be used.
        """
        if settings.registry.url is None:
            return None
        with extras_explained("kafka.registry.url", REGISTRY_EXTRAS):
            # Imported here: who has no registry need not have these. They are missed at the start, not at a message.
            import fastavro  # noqa: F401
            import google.protobuf  # noqa: F401
            import grpc_tools  # noqa: F401

            from workers.registry.registry_client import RegistryClient
        return cls(RegistryClient.of(settings.registry), topic=topic, wait=backoff.seconds)

    def close(self) -> None:
        """Nothing more is asked."""
        self._schemas.close()

    async def named_by(self, records: Iterable[Record]) -> list[Record]:
        """The messages, each with the schema that its frame names. Returns when the registry has said it of all."""
        named = []
        for record in records:
            frame = None if record.value is None else split_frame(record.value)
            if frame is None or (self._own and has_json(frame.body)):
                named.append(record)
            else:
                named.append(replace(record, schema=await self._schema(frame.schema_id)))
        return named

    async def _schema(self, schema_id: int) -> ValueSchema:
        known = self._schemas.known(schema_id)
        if known is not None:
            return known
        return await answer_of(lambda: self._schemas.ask(schema_id), self._wait, "documents", schema_id=schema_id)
