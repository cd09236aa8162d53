"""Schemas that a registry was asked for: each once, and how values are read by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from el4ner.extras import extras_explained
from workers.registry.registered_schema import RefusedSchemaError, RegisteredSchema, UnknownSchemaError
from workers.registry.value_schema import ValueSchema
from workers.registry.value_schemas import UnreadableValues, value_schema

__all__ = ["REGISTRY_EXTRAS", "KnownSchemas", "SchemaSource"]

REGISTRY_EXTRAS: Final = dict.fromkeys(("fastavro", "google", "grpc_tools", "httpx"), "registry")
"""The extra that brings what values behind a registry need."""
_UNKNOWN_SECONDS: Final = 30.0
"""For how long an id that the registry did not know is not asked for again."""
_MOST_SCHEMAS: Final = 10_000
"""More are kept of no topic: whoever frames with ids at random must not fill the memory."""

ReadBy = Callable[[int, RegisteredSchema], ValueSchema]


class SchemaSource(Protocol):
    """What knows schemas by their ids: :class:`workers.registry.registry_client.RegistryClient`."""

    def schema(self, schema_id: int) -> RegisteredSchema:
        """The schema. Raises ``UnknownSchemaError``, ``RefusedSchemaError`` or ``RegistryAwayError``."""
        ...

    def close(self) -> None:
        """Nothing more is asked."""
        ...


@dataclass(frozen=True, slots=True)
class _KeptSchema:
    values: ValueSchema
    until: float | None


class KnownSchemas:
    """What was asked for. To be asked by one thread at a time.

    Args:
        source: asked about what is new.
        read_by: how values of a registered schema are read.
        clock: seconds, of any beginning.
    """

    def __init__(
        self, source: SchemaSource, *, read_by: ReadBy = value_schema, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._read_by = read_by
        self._clock = clock
        self._kept: dict[int, _KeptSchema] = {}

    def close(self) -> None:
        """Nothing more is asked."""
        self._source.close()

    def known(self, schema_id: int) -> ValueSchema | None:
        """How values of that schema are read; None: it has to be asked for."""
        kept = self._kept.get(schema_id)
        if kept is None or (kept.until is not None and self._clock() >= kept.until):
            return None
        return kept.values

    def ask(self, schema_id: int) -> ValueSchema:
        """Ask for it. Blocks. Values of a schema that the registry does not know cannot be read, for half a minute.

        Raises:
            RegistryAwayError: the registry does not say.
            NotInstalledError: ``el4ner[registry]`` is not installed.
        """
        kept = self._asked(schema_id)
        if len(self._kept) >= _MOST_SCHEMAS:
            del self._kept[next(iter(self._kept))]
        self._kept[schema_id] = kept
        return kept.values

    def _asked(self, schema_id: int) -> _KeptSchema:
        try:
            schema = self._source.schema(schema_id)
        except UnknownSchemaError as error:
            unknown = f"the value is framed with schema id {schema_id}: {error}; see kafka.registry.url"
            return _KeptSchema(UnreadableValues(unknown, "schema-id"), self._clock() + _UNKNOWN_SECONDS)
        except RefusedSchemaError as error:
            refused = f"the schema of the value (id {schema_id}) {error}"
            return _KeptSchema(UnreadableValues(refused, "schema-type"), None)
        with extras_explained("kafka.registry.url", REGISTRY_EXTRAS):
            return _KeptSchema(self._read_by(schema_id, schema), None)
