"""Places in JSON Schemas, with what holds there: references followed, and what has to hold together taken as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from el4ner.errors import El4nerError

__all__ = [
    "CHOICES",
    "LOWER",
    "OPAQUE",
    "SUBSCHEMAS",
    "UPPER",
    "Merged",
    "Nodes",
    "SchemaError",
    "SchemaNode",
    "SchemaSet",
]

SchemaSet = Mapping[str, Mapping[str, Any]]
"""Schemas by name and version: ``documents.v1``."""

LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")
OPAQUE: Final = ("pattern", "format", "multipleOf", "uniqueItems", "contentEncoding", "contentMediaType")
"""Either the same or not: which of two patterns is the wider one is not for this check to say."""
SUBSCHEMAS: Final = ("additionalProperties", "items", "propertyNames", "unevaluatedProperties", "unevaluatedItems")
CHOICES: Final = ("anyOf", "oneOf")
_ANNOTATIONS: Final = frozenset(
    {"title", "description", "$comment", "examples", "default", "deprecated", "readOnly", "writeOnly"}
)
_HANDLED: Final = frozenset(
    {"$schema", "$id", "$defs", "$ref", "allOf", "type", "enum", "const", "required", "properties", "x-open"}
    | {*LOWER, *UPPER, *OPAQUE, *SUBSCHEMAS, *CHOICES, "if", "then", "else"}
)
_TYPES: Final = frozenset({"null", "boolean", "object", "array", "number", "integer", "string"})


class SchemaError(El4nerError):
    """Schemas cannot be read, or a reference in them leads nowhere."""

    code = "schemas"


@dataclass(frozen=True, slots=True)
class SchemaNode:
    """A place in a schema of a set."""

    schemas: SchemaSet = field(repr=False, compare=False)
    name: str
    pointer: str
    schema: Any = field(repr=False, compare=False)

    def at(self, *steps: str | int) -> SchemaNode:
        """The place further down; its schema is None if there is nothing."""
        schema, pointer = self.schema, self.pointer
        for step in steps:
            present = step in schema if isinstance(schema, dict) else isinstance(schema, list) and isinstance(step, int)
            schema = schema[step] if present else None
            pointer += "/" + str(step).replace("~", "~0").replace("/", "~1")
        return SchemaNode(self.schemas, self.name, pointer, schema)

    def target(self, reference: str) -> SchemaNode:
        """Where a ``$ref`` leads, in the same set.

        Raises:
            SchemaError: nowhere.
        """
        base, _, fragment = reference.partition("#")
        named = [name for name, schema in self.schemas.items() if schema.get("$id") == base] if base else [self.name]
        if len(named) != 1:
            raise SchemaError(f"{self.name}.json#{self.pointer}: there is no schema {base!r}")
        steps = [step.replace("~1", "/").replace("~0", "~") for step in fragment.split("/")[1:]]
        target = SchemaNode(self.schemas, named[0], "", self.schemas[named[0]]).at(*steps)
        if target.schema is None:
            raise SchemaError(f"{self.name}.json#{self.pointer}: {reference!r} leads nowhere")
        return target

    def parts(self, on_the_way: frozenset[tuple[str, str]] = frozenset()) -> list[SchemaNode]:
        """What has to hold together: this, what it refers to, and what is in ``allOf``."""
        if not isinstance(self.schema, dict) or (self.name, self.pointer) in on_the_way:
            return [self]
        on_the_way |= {(self.name, self.pointer)}
        parts = [self]
        if "$ref" in self.schema:
            parts += self.target(self.schema["$ref"]).parts(on_the_way)
        for index, _ in enumerate(self.schema.get("allOf", ())):
            parts += self.at("allOf", index).parts(on_the_way)
        return parts

    def canonical(self, on_the_way: frozenset[tuple[str, str]] = frozenset()) -> Any:
        """The same for schemas that differ in words and in references alone."""
        if not isinstance(self.schema, dict):
            return self.schema
        if (self.name, self.pointer) in on_the_way:
            return {"recursion": [self.name, self.pointer]}
        on_the_way |= {(self.name, self.pointer)}
        canonical: dict[str, Any] = {}
        for keyword, value in self.schema.items():
            if keyword in _ANNOTATIONS or keyword in {"$defs", "$id", "$schema"}:
                continue
            if keyword == "$ref":
                canonical[keyword] = self.target(value).canonical(on_the_way)
            elif keyword in {"properties", "patternProperties", "dependentSchemas"} and isinstance(value, dict):
                canonical[keyword] = {name: self.at(keyword, name).canonical(on_the_way) for name in value}
            elif isinstance(value, list) and keyword not in {"enum", "required", "type"}:
                canonical[keyword] = [self.at(keyword, index).canonical(on_the_way) for index, _ in enumerate(value)]
            elif isinstance(value, dict) and keyword != "const":
                canonical[keyword] = self.at(keyword).canonical(on_the_way)
            else:
                canonical[keyword] = value
        return canonical["$ref"] if canonical.keys() == {"$ref"} else canonical


Nodes = tuple[SchemaNode, ...]
"""Schemas that have to hold together; none: anything is valid."""


class Merged:
    """Several schemas that have to hold together, as one."""

    def __init__(self, nodes: Nodes) -> None:
        self.parts = [part for node in nodes for part in node.parts()]
        self._dicts = [part for part in self.parts if isinstance(part.schema, dict)]
        self.never = any(part.schema is False for part in self.parts)
        self.open = any(part.schema.get("x-open") is True for part in self._dicts)
        self.values = self._allowed_values()
        self.types = self._allowed_types()
        self.required = {name: part for part in self._dicts for name in part.schema.get("required", ())}

    def having(self, keyword: str) -> list[SchemaNode]:
        """The parts that say something by this keyword."""
        return [part for part in self._dicts if keyword in part.schema]

    def child(self, keyword: str) -> Nodes:
        """What the parts say by a keyword whose value is a schema."""
        return tuple(part.at(keyword) for part in self.having(keyword))

    def properties(self) -> dict[str, Nodes]:
        """What the parts say of each property that they name."""
        properties: dict[str, Nodes] = {}
        for part in self.having("properties"):
            for name in part.schema["properties"]:
                properties[name] = (*properties.get(name, ()), part.at("properties", name))
        return properties

    def unknown(self) -> dict[str, list[Any]]:
        """Keywords that the comparison knows nothing of, with their values."""
        unknown: dict[str, list[Any]] = {}
        for part in self._dicts:
            for keyword in part.schema.keys() - _HANDLED - _ANNOTATIONS:
                if not keyword.startswith("x-"):
                    unknown.setdefault(keyword, []).append(part.at(keyword).canonical())
        return unknown

    def where(self, keyword: str) -> SchemaNode | None:
        """The place that a remark about a keyword is about."""
        having = self.having(keyword) or self.parts
        return having[0] if having else None

    def _allowed_values(self) -> dict[bytes, Any] | None:
        allowed: dict[bytes, Any] | None = None
        for part in self._dicts:
            for keyword in ("enum", "const"):
                if keyword in part.schema:
                    values = part.schema["enum"] if keyword == "enum" else [part.schema["const"]]
                    keyed = {orjson.dumps(value, option=orjson.OPT_SORT_KEYS): value for value in values}
                    allowed = keyed if allowed is None else {key: allowed[key] for key in allowed.keys() & keyed.keys()}
        return allowed

    def _allowed_types(self) -> frozenset[str]:
        allowed = _TYPES
        for part in self.having("type"):
            named = part.schema["type"]
            types = {named} if isinstance(named, str) else set(named)
            allowed &= types | ({"integer"} if "number" in types else set())
        if self.values is not None:
            self.values = {key: value for key, value in self.values.items() if _types_of(value) & allowed}
            allowed &= frozenset().union(*map(_types_of, self.values.values()))
        return allowed


def _types_of(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset({"null"})
    for kind, name in ((bool, "boolean"), (str, "string"), (dict, "object"), (list, "array"), (int, "integer")):
        if isinstance(value, kind):
            return frozenset({name})
    # JSON Schema calls 1.0 an integer.
    return frozenset({"integer" if float(value).is_integer() else "number"})
