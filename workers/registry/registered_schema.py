"""A schema as a registry has it, and how asking for one fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from el4ner.errors import El4nerError

__all__ = [
    "LONGEST_NAME",
    "RefusedSchemaError",
    "RegisteredSchema",
    "RegistryAwayError",
    "SchemaReference",
    "UnknownSchemaError",
]

LONGEST_NAME: Final = 255
"""Characters of a field's or an enumeration value's name. Of a value with longer ones nothing is read: it might be a
thousand times as large as its bytes."""


class RegistryAwayError(El4nerError):
    """The registry cannot be reached, or does not answer as a registry does. It may answer later."""

    code = "registry-away"


class UnknownSchemaError(El4nerError):
    """The registry has no schema of that id."""

    code = "schema-id"


class RefusedSchemaError(El4nerError):
    """The registry has the schema, and it refers to too many others; the message goes on after "the schema"."""

    code = "schema-type"


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
