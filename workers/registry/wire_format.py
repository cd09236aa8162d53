"""Confluent's wire format: a zero byte, the schema's id in four bytes (big-endian), then the value."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["Frame", "framed", "split_frame"]

_HEADER: Final = struct.Struct(">bi")
_LONGEST_PLAIN: Final = _HEADER.size
"""A value that is no longer has nothing behind its frame: what it is, is not sure."""


class Frame(NamedTuple):
    """A value without its frame."""

    schema_id: int
    body: bytes


def split_frame(value: bytes) -> Frame | None:
    """The id and the rest of a framed value; None: it has no frame. JSON never looks framed: it has no zero byte."""
    if len(value) <= _LONGEST_PLAIN or value[0] != 0:
        return None
    _, schema_id = _HEADER.unpack_from(value)
    return Frame(schema_id, value[_HEADER.size :]) if schema_id > 0 else None


def framed(schema_id: int, body: bytes) -> bytes:
    """The value that :func:`split_frame` splits so."""
    return _HEADER.pack(0, schema_id) + body
