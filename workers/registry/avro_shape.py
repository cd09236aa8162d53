"""What an Avro schema lets a value grow to. Pure.

fastavro follows a value as deep as it goes, on the stack of the process, which then dies of it; of items that take
no bytes, a message of ten bytes has as many as it says; and a field of type null takes no bytes either, but memory in
each item. All are refused by the schema, before any value is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from workers.registry.registered_schema import LONGEST_NAME

__all__ = ["AvroShapeError", "needed_shape"]

_MOST_PARTS: Final = 10_000
_DEEPEST: Final = 64
_MOST_EMPTY: Final = 100
"""Values that take no bytes, for each byte that an item of an array or map takes at least."""


class AvroShapeError(ValueError):
    """Values of a schema are not safe to read; the message goes on after "the schema"."""


def needed_shape(schema: Any, named: Mapping[str, Any]) -> None:
    """Check a schema as ``fastavro.parse_schema`` gives it. ``named``: its records by their full names.

    Raises:
        AvroShapeError: what it writes is not safe to read.
    """
    _Shape(named).size(schema, ())


class _Size(NamedTuple):
    """What a value takes: bytes at least, and at most so many values that take none."""

    fewest_bytes: int
    most_empty: int


class _Shape:
    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._parts = 0

    def size(self, schema: Any, inside: tuple[str, ...], depth: int = 0) -> _Size:
        """How large a value is. ``inside``: the records around it."""
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
            sizes = [self.size(each, inside, depth + 1) for each in schema]
            fewest = min((each.fewest_bytes for each in sizes), default=0)
            # Null itself is the union's value, for which its byte stands.
            return _Size(1 + fewest, max((each.most_empty for each in sizes if each != _NULL), default=0))
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema, inside, depth)
        if kind in ("array", "map"):
            self._needed_items(kind, self.size(schema["items" if kind == "array" else "values"], inside, depth + 1))
            return _Size(1, 0)
        if kind == "fixed":
            return _of(int(schema["size"]))
        if kind == "enum":
            _needed_names(map(str, schema["symbols"]))
            return _of(1)
        return self.size(kind, inside, depth + 1)

    def _record(self, schema: Any, inside: tuple[str, ...], depth: int) -> _Size:
        _needed_names(str(field["name"]) for field in schema["fields"])
        around = (*inside, str(schema["name"]))
        sizes = [self.size(field["type"], around, depth + 1) for field in schema["fields"]]
        fewest = sum(each.fewest_bytes for each in sizes)
        # Without a field the record itself is what takes no bytes.
        return _Size(fewest, sum(each.most_empty for each in sizes) if sizes else 1)

    def _needed_items(self, kind: str, item: _Size) -> None:
        if kind == "map":  # of whose items the key takes a byte
            item = _Size(item.fewest_bytes + 1, item.most_empty)
        elif item.fewest_bytes <= 0:
            raise AvroShapeError("has an array of what takes no bytes, and is not read")
        if item.most_empty > _MOST_EMPTY * item.fewest_bytes:
            raise AvroShapeError(
                f"has items of an array or map with more than {_MOST_EMPTY} values that take no bytes, for each byte "
                "that an item takes, and is not read"
            )

    def _primitive(self, name: str, inside: tuple[str, ...], depth: int) -> _Size:
        if name in self._named:
            return self.size(self._named[name], inside, depth + 1)
        return _of({"null": 0, "float": 4, "double": 8}.get(name, 1))


def _of(size: int) -> _Size:
    """The size of a value without parts."""
    return _Size(size, 0 if size > 0 else 1)


_NULL: Final = _of(0)


def _needed_names(names: Iterable[str]) -> None:
    """In the value, a byte may stand for a name that is as long as a schema likes, again and again."""
    if any(len(name) > LONGEST_NAME for name in names):
        raise AvroShapeError(f"has a name of more than {LONGEST_NAME} characters, and is not read")
