"""The schemas of documents that come in a registry's frame, asked for before the documents are read.

A document waits here, unread and unfinished, while the registry is away: it is lost by no outage, and no dead letter
either. Each schema is asked for once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from el4ner.extras import extras_explained
from workers.backoff import Backoff
from workers.config import KafkaSettings
from workers.messages.envelope import Record
from workers.registry.outages import answer_of
from workers.registry.registered_schema import RegisteredSchema, UnknownSchemaError
from workers.registry.value_schemas import UnreadableValues, ValueSchema, value_schema
from workers.registry.wire_format import split_frame

__all__ = ["DocumentSchemas", "SchemaSource"]

_EXTRAS: Final = {"fastavro": "registry", "httpx": "registry"}
_UNKNOWN_SECONDS: Final = 30.0
"""For how long an id that the registry did not know is not asked for again."""
_MOST_SCHEMAS: Final = 10_000
"""More are kept of no topic: whoever frames with ids at random must not fill the memory."""


class SchemaSource(Protocol):
    """What knows schemas by their ids: :class:`workers.registry.registry_client.RegistryClient`."""

    def schema(self, schema_id: int) -> RegisteredSchema:
        """The schema. Raises ``UnknownSchemaError`` or ``RegistryAwayError``."""
        ...

    def close(self) -> None:
        """Nothing more is asked."""
        ...


@dataclass(frozen=True, slots=True)
class _KeptSchema:
    values: ValueSchema
    until: float | None


class DocumentSchemas:
    """How framed values are read, by the id in their frame.

    Args:
        source: asked on threads, about one schema at a time.
        wait: seconds before the n-th retry.
        clock: seconds, of any beginning.
    """

    def __init__(
        self,
        source: SchemaSource,
        *,
        wait: Callable[[int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._wait = wait
        self._clock = clock
        self._kept: dict[int, _KeptSchema] = {}

    @classmethod
    def of(cls, settings: KafkaSettings, backoff: Backoff) -> Self | None:
        """As the settings say; None: they name no registry.

        Raises:
            ConfigError: ``el4ner[registry]`` is not installed, or a file of the settings cannot be used.
        """
        if settings.registry.url is None:
            return None
        with extras_explained("kafka.registry.url", _EXTRAS):
            # Imported here: who has no registry need not have these. Avro is missed at the start, not at a message.
            import fastavro  # noqa: F401

            from workers.registry.registry_client import RegistryClient
        return cls(RegistryClient.of(settings.registry), wait=backoff.seconds)

    def close(self) -> None:
        """Nothing more is asked."""
        self._source.close()

    async def named_by(self, records: Iterable[Record]) -> list[Record]:
        """The messages, each with the schema that its frame names. Returns when the registry has said it of all."""
        named = []
        for record in records:
            frame = None if record.value is None else split_frame(record.value)
            named.append(record if frame is None else replace(record, schema=await self._schema(frame.schema_id)))
        return named

    async def _schema(self, schema_id: int) -> ValueSchema:
        kept = self._kept.get(schema_id)
        if kept is None or (kept.until is not None and self._clock() >= kept.until):
            kept = await self._ask(schema_id)
            if len(self._kept) >= _MOST_SCHEMAS:
                del self._kept[next(iter(self._kept))]
            self._kept[schema_id] = kept
        return kept.values

    async def _ask(self, schema_id: int) -> _KeptSchema:
        try:
            schema = await answer_of(
                lambda: self._source.schema(schema_id), self._wait, "documents", schema_id=schema_id
            )
        except UnknownSchemaError as error:
            unknown = f"the value is framed with schema id {schema_id}: {error}; see kafka.registry.url"
            return _KeptSchema(UnreadableValues(unknown, "schema-id"), self._clock() + _UNKNOWN_SECONDS)
        return _KeptSchema(value_schema(schema_id, schema), None)
