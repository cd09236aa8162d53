"""Documents that were written as Avro or Protobuf: what of it JSON has another way to say."""

from __future__ import annotations

from typing import Any

from el4ner.errors import MessageError

__all__ = ["as_json_document"]


def as_json_document(data: Any) -> Any:
    """A decoded document as it would stand in JSON. A field that is null is one that is not there, and so is
    an ``id`` or ``pool`` that is empty; bytes are text
    with a character for each, as in Avro's own JSON encoding.

    Raises:
        MessageError: ``schema``: the text is bytes, of which nobody says how they are encoded.
    """
    if not isinstance(data, dict):
        return _json(data)
    if isinstance(data.get("text"), bytes):
        raise MessageError("not a documents message: /text: is bytes: have its type be string", code="schema")
    # Of proto3's plain fields one that nobody has set is empty.
    return {
        name: _json(value)
        for name, value in data.items()
        if value is not None and not (value == "" and name in ("id", "pool"))
    }


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [_json(each) for each in value]
    return {name: _json(each) for name, each in value.items()} if isinstance(value, dict) else value
