"""What an Avro schema lets a value grow to. Pure.

fastavro follows a value as deep as it goes, on the stack of the process, which then dies of it; and of items that take
no bytes, a message of ten bytes has as many as it says. Both are refused by the schema, before any value is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["AvroShapeError", "needed_shape"]

_MOST_PARTS: Final = 10_000
_DEEPEST: Final = 64


class AvroShapeError(ValueError):
    """Values of a schema are not safe to read; the message goes on after "the schema"."""


def needed_shape(schema: Any, named: Mapping[str, Any]) -> None:
    """Check a schema as ``fastavro.parse_schema`` gives it. ``named``: its records by their full names.

    Raises:
        AvroShapeError: what it writes is not safe to read.
    """
    _Shape(named).fewest_bytes(schema, ())


class _Shape:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._parts = 0

    def fewest_bytes(self, schema: Any, inside: tuple[str, ...], depth: int = 0) -> int:
        """How many bytes a value takes at least. ``inside``: the records around it."""
        self._parts += 1
        if self._parts > _MOST_PARTS or depth > _DEEPEST:
            raise AvroShapeError(f"has more than {_MOST_PARTS:,} parts, or is nested more than {_DEEPEST} deep")
        if isinstance(schema, str):
            if schema in inside:
                raise AvroShapeError(
                    f"has {schema} inside of {schema}: such values may be nested without end, and are not read"
                )
            return self._primitive(schema, inside, depth)
        if isinstance(schema, list):  # a union: which of them it is takes a byte
            return 1 + min((self.fewest_bytes(each, inside, depth + 1) for each in schema), default=0)
        kind = schema["type"]
        if kind in ("record", "error"):
            around = (*inside, str(schema["name"]))
            return sum(self.fewest_bytes(field["type"], around, depth + 1) for field in schema["fields"])
        if kind in ("array", "map"):
            items = self.fewest_bytes(schema["items" if kind == "array" else "values"], inside, depth + 1)
            if items == 0 and kind == "array":
                raise AvroShapeError("has an array of what takes no bytes, and is not read")
            return 1
        if kind == "fixed":
            return int(schema["size"])
        return 1 if kind == "enum" else self.fewest_bytes(kind, inside, depth + 1)

    def _primitive(self, name: str, inside: tuple[str, ...], depth: int) -> int:
        if name in self._named:
            return self.fewest_bytes(self._named[name], inside, depth + 1)
        return {"null": 0, "float": 4, "double": 8}.get(name, 1)
