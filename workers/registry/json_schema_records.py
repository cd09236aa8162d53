"""El4ner's own JSON Schemas as record types, for Avro and Protobuf. What these cannot express is an error here, so that
nothing is lost where a value is written. Pure.

Limits on values (a length, a pattern, a list of allowed strings) are not taken over: the JSON Schema has them, and a
consumer that reads Avro or Protobuf has no use for them. An object without known properties becomes the text of its
JSON: it may hold anything, and a map of unions would lose what is nested, and whole numbers above 2^63.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from workers.registry.record_types import ListType, MapType, RecordField, RecordType, ScalarType, ValueType

__all__ = ["InexpressibleError", "record_name", "record_of"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SCALARS: Final[Mapping[str, ScalarType]] = {
    "string": ScalarType("string"),
    "integer": ScalarType("integer"),
    "number": ScalarType("number"),
    "boolean": ScalarType("boolean"),
}
_LIMITS: Final = frozenset(
    {"minLength", "maxLength", "pattern", "format", "minimum", "maximum", "minItems", "maxItems", "propertyNames"}
    | {"$schema", "$id", "$defs", "title", "description", "x-open", "if", "then", "else"}
)
"""Keywords that say what a value may be and not what it consists of."""
_DEEPEST: Final = 32


class InexpressibleError(ValueError):
    """A JSON Schema has something that Avro or Protobuf cannot say without loss; names the place."""


def record_name(topic: str) -> str:
    """The name of a topic's record: ``TaggedDocument`` of ``tagged-documents``."""
    return _pascal(_singular(topic))


def record_of(topic: str, schema: Mapping[str, Any], common: Mapping[str, Any]) -> RecordType:
    """The record of a topic's schema, which refers to ``common``.

    Raises:
        InexpressibleError: names the place and what is there.
    """
    record = _SchemaTypes(common, schema).value(schema, record_name(topic), topic, 0)
    if not isinstance(record, RecordType):
        raise InexpressibleError(f"{topic}: is no object with properties")
    names: dict[str, RecordType] = {}
    for each in _all_records(record):
        if names.setdefault(each.name, each) != each:
            raise InexpressibleError(
                f"{topic}: two forms of a record would be called {each.name}: name one differently"
            )
    return record


class _SchemaTypes:
    def __init__(self, common: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self._definitions = {
            **{f"{common['$id']}#/$defs/{name}": each for name, each in common["$defs"].items()},
            **{f"#/$defs/{name}": each for name, each in {**common["$defs"], **own.get("$defs", {})}.items()},
        }

    def value(self, schema: Mapping[str, Any], name: str, place: str, depth: int) -> ValueType:
        """The type of what is not null."""
        kind, nullable, _ = self.whole(schema, name, place, depth)
        if nullable:
            raise InexpressibleError(f"{place}: may be null where Avro and Protobuf have no null (an item, or a value)")
        return kind

    def whole(self, schema: Mapping[str, Any], name: str, place: str, depth: int) -> tuple[ValueType, bool, str]:
        """The type, whether it may be null, and what is said about it. ``name``: of the record, if it is one."""
        if depth > _DEEPEST:
            raise InexpressibleError(f"{place}: contains itself, or is nested more than {_DEEPEST} deep")
        merged, name = self._merged(schema, name, place)
        doc = str(merged.get("description", ""))
        if "anyOf" in merged:
            choices = [each for each in merged["anyOf"] if each != {"type": "null"}]
            if len(choices) != 1 or len(merged["anyOf"]) != 2 or merged.keys() - {"anyOf"} - _LIMITS:
                raise InexpressibleError(f"{place}: anyOf is understood of one schema and null alone")
            kind, _, inner = self.whole(choices[0], name, place, depth + 1)
            return kind, True, doc or inner
        types = merged.get("type", "string" if {"enum", "const"} & merged.keys() else None)
        types = [types] if isinstance(types, str) else list(types or ())
        nullable = "null" in types
        types = [each for each in types if each != "null"]
        if len(types) != 1:
            raise InexpressibleError(f"{place}: has {len(types)} types; expected one, or one and null")
        return self._of_type(types[0], merged, name, place, depth), nullable, _with_values(doc, merged)

    def _of_type(self, kind: str, schema: Mapping[str, Any], name: str, place: str, depth: int) -> ValueType:
        values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
        known = {"type", "enum", "const"}
        result: ValueType
        if kind == "array":
            known |= {"items"}
            if not isinstance(schema.get("items"), Mapping):
                raise InexpressibleError(f"{place}: an array needs one schema of its items")
            result = ListType(self.value(schema["items"], _singular(name), f"{place}/items", depth + 1))
        elif kind == "object":
            known |= {"properties", "required", "additionalProperties"}
            result = self._object(schema, name, place, depth)
        elif kind in _SCALARS:
            result = _SCALARS[kind]
            if kind != "string" and values:
                raise InexpressibleError(f"{place}: a list of values is understood of strings alone")
        else:
            raise InexpressibleError(f"{place}: type {kind!r}")
        if (other := sorted(schema.keys() - known - _LIMITS)) or any(not isinstance(each, str) for each in values):
            raise InexpressibleError(f"{place}: {', '.join(other) or 'values that are no strings'}")
        return result

    def _object(self, schema: Mapping[str, Any], name: str, place: str, depth: int) -> ValueType:
        properties, more = schema.get("properties"), schema.get("additionalProperties", True)
        if not properties:
            if isinstance(more, Mapping):
                return MapType(self.value(more, _singular(name), f"{place}/*", depth + 1))
            return ScalarType("json")
        if isinstance(more, Mapping):
            raise InexpressibleError(f"{place}: has known properties and others of a known type")
        required = set(schema.get("required", ()))
        if unknown := required - properties.keys():
            raise InexpressibleError(f"{place}: requires {', '.join(sorted(unknown))}, of which nothing is known")
        fields = []
        for key, inner in properties.items():
            where = f"{place}/{key}"
            if _NAME.fullmatch(key) is None:
                raise InexpressibleError(f"{where}: a field's name is small letters, digits and single underscores")
            kind, nullable, doc = self.whole(inner, name + _pascal(key), where, depth + 1)
            if nullable and key not in required:
                raise InexpressibleError(f"{where}: may be null and may be left out: let one of the two be enough")
            fields.append(RecordField(key, kind, key in required, nullable, doc))
        return RecordType(name, str(schema.get("title") or schema.get("description") or ""), tuple(fields))

    def _merged(self, schema: Mapping[str, Any], name: str, place: str) -> tuple[dict[str, Any], str]:
        """The schema with what it refers to and its ``allOf`` in one; of a single reference with its name."""
        parts = [self._referred(schema, place)] if "$ref" in schema else []
        parts += list(schema.get("allOf", ()))
        own = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        if "$ref" in schema:
            name = _pascal(str(schema["$ref"]).rpartition("/")[2])
        merged: dict[str, Any] = {}
        for part in (*(self._merged(each, name, place)[0] for each in parts), own):
            for key, value in part.items():
                if key == "properties":
                    twice = value.keys() & merged.get(key, {}).keys()
                    if any(merged[key][each] != value[each] for each in twice):
                        raise InexpressibleError(f"{place}: {', '.join(sorted(twice))} stands in it twice, differently")
                    merged[key] = {**merged.get(key, {}), **value}
                elif key == "required":
                    merged[key] = [*merged.get(key, ()), *value]
                elif key == "type" and merged.get(key, value) != value:
                    raise InexpressibleError(f"{place}: has two types at once")
                else:
                    merged[key] = value
        return merged, name

    def _referred(self, schema: Mapping[str, Any], place: str) -> Mapping[str, Any]:
        reference = str(schema["$ref"])
        if reference not in self._definitions:
            raise InexpressibleError(f"{place}: refers to {reference}, which is not there")
        referred: Mapping[str, Any] = self._definitions[reference]
        return referred


def _all_records(value: ValueType) -> list[RecordType]:
    """Every record, also where a name comes again."""
    if isinstance(value, RecordType):
        return [value, *(inner for field in value.fields for inner in _all_records(field.type))]
    if isinstance(value, ListType):
        return _all_records(value.items)
    return _all_records(value.values) if isinstance(value, MapType) else []


def _with_values(doc: str, schema: Mapping[str, Any]) -> str:
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if not values:
        return doc
    more = "; more may come" if schema.get("x-open") else ""
    return f"{doc} One of: {', '.join(map(str, values))}{more}.".strip()


def _pascal(name: str) -> str:
    """``TaggedDocument`` of ``tagged-document``; ``typedSpan`` keeps its humps."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_]", name))


def _singular(name: str) -> str:
    if name.endswith("ies"):
        return name[:-3] + "y"
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name
