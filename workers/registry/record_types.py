"""Values as types that JSON Schema, Avro and Protobuf share: what they differ in is in none of these. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ListType", "MapType", "RecordField", "RecordType", "ScalarType", "ValueType", "records_in"]


@dataclass(frozen=True, slots=True)
class ScalarType:
    """A value without parts. ``json``: anything, written as the text of its JSON."""

    kind: Literal["string", "integer", "number", "boolean", "json"]


@dataclass(frozen=True, slots=True)
class ListType:
    """An array, of which no item is null."""

    items: ValueType


@dataclass(frozen=True, slots=True)
class MapType:
    """An object whose keys are data; no value is null."""

    values: ValueType


@dataclass(frozen=True, slots=True)
class RecordField:
    """A property. ``required``: it is there in every value. ``nullable``: it may be null, which is then said.

    No field is both left out and null, so that one way to say "nothing" does for both.
    """

    name: str
    type: ValueType
    required: bool
    nullable: bool
    doc: str

    @property
    def doc_of_text(self) -> str:
        """What is said of it where anything is written as the text of its JSON."""
        is_text = isinstance(self.type, ScalarType) and self.type.kind == "json"
        return f"{self.doc} As the text of its JSON.".strip() if is_text else self.doc


@dataclass(frozen=True, slots=True)
class RecordType:
    """An object with known properties. ``name`` is used for one form of it in a schema."""

    name: str
    doc: str
    fields: tuple[RecordField, ...]


ValueType = ScalarType | ListType | MapType | RecordType


def records_in(value: ValueType) -> dict[str, RecordType]:
    """All records in it by their names, itself too, in the order of coming: what is around before what is inside."""
    found: dict[str, RecordType] = {}
    waiting = [value]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, RecordType):
            if each.name not in found:
                found[each.name] = each
                waiting += [field.type for field in each.fields]
        elif isinstance(each, ListType):
            waiting.append(each.items)
        elif isinstance(each, MapType):
            waiting.append(each.values)
    return found
