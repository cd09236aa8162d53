"""A schema as a registry has it, and how asking for one fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from el4ner.errors import El4nerError

__all__ = ["RegisteredSchema", "RegistryAwayError", "SchemaReference", "UnknownSchemaError"]


class RegistryAwayError(El4nerError):
    """The registry cannot be reached, or does not answer as a registry does. It may answer later."""

    code = "registry-away"


class UnknownSchemaError(El4nerError):
    """The registry has no schema of that id."""

    code = "schema-id"


class SchemaReference(NamedTuple):
    """Another schema, by the name that it is referred to by: a record's in Avro, a file's in Protobuf."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as it was registered. ``kind``: ``AVRO``, ``JSON`` or ``PROTOBUF``. ``references``: schemas that it
    refers to, each behind those that it needs itself."""

    kind: str
    text: str
    references: tuple[SchemaReference, ...] = ()
