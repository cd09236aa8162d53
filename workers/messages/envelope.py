"""Messages as they are read and as they are sent, and which document a message is about. No Kafka in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from el4ner.errors import DocumentError, MessageError
from el4ner.serialize import dumps, fingerprint
from el4ner.types import Document
from workers.messages import json_schemas
from workers.messages.headers import Headers, Trace, common_headers, find, with_id
from workers.messages.nesting import MOST_METADATA_LEVELS, is_nested_too_deep, may_be_nested_too_deep
from workers.messages.payloads import describe, describe_json
from workers.messages.replay_headers import REPLAY, read_replay
from workers.registry.value_schema import ValueSchema
from workers.registry.wire_format import split_frame
from workers.topics import Topic

__all__ = [
    "DEAD_LETTER_PREFIX",
    "UNKNOWN",
    "Origin",
    "Outgoing",
    "Record",
    "checked",
    "coordinates",
    "dead_letter",
    "decode",
    "decode_record",
    "document_id",
    "document_of",
    "error_json",
    "failed_value",
    "headers_in_common",
    "message_id",
    "origin_of",
    "outgoing",
    "parse",
    "peek",
    "revision_of",
    "stated_revision",
    "value_of",
    "whose_answer",
]

DEAD_LETTER_PREFIX: Final = "el4ner-"
POSITION: Final = "el4ner-position"
TIMESTAMP: Final = "el4ner-timestamp"
REVISION: Final = "el4ner-revision"
STATUS: Final = "el4ner-status"
_MAX_DIGITS: Final = 18
_MAX_REASON: Final = 1_000
_MAX_ID: Final = 1_024
_MAX_REVISION: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """A message as it came: ``topic`` is what it is, ``source`` the topic's name on the broker.

    ``timestamp_ms`` -1: it has none. ``schema``: how what follows a registry's frame is read, if it was asked.
    """

    topic: Topic
    source: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    schema: ValueSchema | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, to one of our topics or the topic of that name. ``partition`` None: by the key (murmur2)."""

    topic: Topic | str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the document of a message came from: what its messages carry through all stages, as headers.

    ``position`` is the offset of the document on its partition of the ``documents`` topic, ``timestamp_ms`` the time of
    that message, ``replays`` how often it was sent again from the dead letters. -1: not known, as the messages of
    el4ner 0.1 do not say.
    """

    position: int = -1
    timestamp_ms: int = -1
    replays: int = 0

    @property
    def headers(self) -> Headers:
        """As headers of a message; what is not known is left out."""
        known = {
            POSITION: self.position if self.position >= 0 else None,
            TIMESTAMP: self.timestamp_ms if self.timestamp_ms >= 0 else None,
            REPLAY: self.replays or None,
        }
        return tuple((name, str(value).encode()) for name, value in known.items() if value is not None)


UNKNOWN: Final = Origin()
"""The origin of a document is not known."""


def origin_of(record: Record) -> Origin:
    """The origin that a message names; a message of the ``documents`` topic is its own."""
    replays = _number(record, REPLAY, 0)
    if record.topic is Topic.DOCUMENTS:
        return Origin(record.offset, record.timestamp_ms, replays)
    return Origin(_number(record, POSITION, -1), _number(record, TIMESTAMP, -1), replays)


def _number(record: Record, name: str, otherwise: int) -> int:
    digits = find(record.headers, name)
    if digits is None or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return otherwise
    return int(digits)


def peek(value: bytes | None) -> Any:
    """The JSON of a message that may be none at all; None if it cannot be read."""
    if value is None:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return _framed_json(value)


def _framed_json(value: bytes) -> Any:
    """The JSON behind the frame of a registry; None: there is none. Avro may be any bytes, but no object or array of
    JSON from end to end."""
    frame = split_frame(value)
    if frame is None or frame.body[:1] not in (b"{", b"["):
        return None
    try:
        return orjson.loads(frame.body)
    except orjson.JSONDecodeError:
        return None


def parse(value: bytes) -> Any:
    """A value that is JSON, with or without the frame of a schema registry.

    Raises:
        MessageError: ``encoding`` (not UTF-8) or ``json`` (not JSON); says what the value looks like.
    """
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if (data := _framed_json(value)) is not None:
            return data
        try:
            value.decode()
        except UnicodeDecodeError as broken:
            reason = f"the value is not UTF-8 ({broken.reason} at byte {broken.start})"
            raise MessageError(f"{reason}: {describe(value)}", code="encoding") from error
        raise MessageError(f"the value is not JSON: {describe(value)} ({error})", code="json") from error


def decode(topic: Topic, value: bytes) -> Mapping[str, Any]:
    """A value that its topic's schema allows.

    Raises:
        MessageError: ``encoding`` (not UTF-8), ``json`` (not JSON) or ``schema``; names the place.
    """
    return checked(topic, parse(value), value)


def decode_record(record: Record) -> Mapping[str, Any]:
    """The value of a message, which is not null, as its topic's schema allows it.

    Raises:
        MessageError: it cannot be read, or is something else; says why.
    """
    return checked(record.topic, value_of(record), record.value or b"")


def value_of(record: Record) -> Any:
    """What a message's value has in it, which is not null: JSON, or what the schema of its frame says.

    Raises:
        MessageError: it cannot be read, and why.
    """
    assert record.value is not None
    frame = None if record.schema is None else split_frame(record.value)
    return parse(record.value) if record.schema is None or frame is None else record.schema.read(frame.body)


def checked(topic: Topic, data: Any, value: bytes) -> Mapping[str, Any]:
    """The data of a ``value``, which its topic's schema allows.

    Raises:
        MessageError: ``schema``; names the place.
    """
    try:
        json_schemas.validate(topic.value, data)
    except MessageError as error:
        seems = describe_json(data)
        if seems is None:
            raise
        raise MessageError(f"{error}: {seems}", code=error.code) from error
    loaded: Mapping[str, Any] = data
    if "metadata" in loaded and may_be_nested_too_deep(value) and is_nested_too_deep(loaded["metadata"]):
        reason = f"not a {topic.value} message: /metadata: is nested more than {MOST_METADATA_LEVELS} deep"
        raise MessageError(reason, code="schema")
    return loaded


def document_id(record: Record, data: Any) -> str:
    """Whose document a message of the ``documents`` topic is, also if nothing else of it can be read.

    The value's ``id``; else the key, if it is UTF-8 and not empty; else where the message lies:
    ``topic-partition-offset``. ``data`` is :func:`peek` of the value. Every consumer of the topic finds the same.
    """
    if isinstance(data, dict):
        stated = data.get("id")
        if isinstance(stated, str) and 0 < len(stated) <= _MAX_ID:
            return stated
    if record.key:
        try:
            key = record.key.decode()
        except UnicodeDecodeError:
            key = ""
        if 0 < len(key) <= _MAX_ID:
            return key
    return coordinates(record)


def revision_of(data: Any) -> int:
    """The revision that a message names, 0 if it names none that is valid."""
    revision = data.get("revision") if isinstance(data, dict) else None
    valid = isinstance(revision, int) and not isinstance(revision, bool) and 0 <= revision <= _MAX_REVISION
    return revision if valid and revision is not None else 0


def stated_revision(record: Record, data: Any) -> int:
    """The revision of a message that cannot be read: as a header says, else as :func:`revision_of`."""
    revision = _number(record, REVISION, -1)
    return revision if 0 <= revision <= _MAX_REVISION else revision_of(data)


def whose_answer(record: Record) -> tuple[str | None, int]:
    """The document and revision of a stage's message that cannot be read; None: they cannot be told.

    A message without them is not answered by its coordinates, as one of ``documents`` is: on a stage's topic these are
    the message's, not the document's.
    """
    data = peek(record.value)
    inner = data.get("document") if isinstance(data, dict) else None
    document = document_id(record, inner)
    whose = None if document == coordinates(record) else document
    return whose, stated_revision(record, inner)


def coordinates(record: Record) -> str:
    """Where a message lies: ``topic-partition-offset``."""
    return f"{record.source}-{record.partition}-{record.offset}"


def document_of(record: Record, data: Mapping[str, Any]) -> Document:
    """The document of a valid message of the ``documents`` topic."""
    return Document(
        id=document_id(record, data), text=data["text"], pool=data.get("pool"), revision=data.get("revision", 0)
    )


def message_id(document: str, revision: int, stage: str, producer: Any) -> str:
    """The same document, revision, stage and producer give the same id: a repeated message is recognised by it."""
    return fingerprint(document, revision, stage, producer)


def error_json(error: DocumentError) -> dict[str, str]:
    """Code and message; the message is bounded."""
    return {"code": error.code, "message": _bounded(str(error))}


def failed_value(
    stage: str,
    *,
    document: str,
    revision: int,
    text: str | None,
    pool: str | None,
    error: DocumentError,
    carried: Mapping[str, Any],
) -> dict[str, Any]:
    """A stage's terminal answer about a document that it cannot process. ``carried``: :mod:`workers.stages.stage`."""
    return {
        "stage": stage,
        "status": "failed",
        "document": {"id": document, "revision": revision, "text": text, "pool": pool},
        "error": error_json(error),
        **carried,
    }


def outgoing(
    topic: Topic,
    value: Mapping[str, Any] | None,
    *,
    key: str,
    subject: str,
    event_id: str,
    source: str,
    now_ms: int,
    trace: Trace,
    partition: int | None = None,
    more: Headers = (),
) -> Outgoing:
    """A message of el4ner's own, with its headers and ``more`` of them. ``value`` None deletes."""
    common = headers_in_common(topic, source=source, subject=subject, now_ms=now_ms, state=trace.state)
    headers = with_id(common, event_id, trace.parent)
    return Outgoing(topic, key.encode(), None if value is None else dumps(value), headers + more, partition)


def headers_in_common(topic: Topic, *, source: str, subject: str, now_ms: int, state: bytes | None) -> Headers:
    """What the headers of a document's messages to one topic have in common; ``state``: of their trace."""
    event_source, event_type, schema = _event_of(topic, source)
    return common_headers(
        source=event_source, event_type=event_type, time_ms=now_ms, subject=subject, schema=schema, state=state
    )


@lru_cache(maxsize=64)
def _event_of(topic: Topic, source: str) -> tuple[str, str, str]:
    """``ce_source``, ``ce_type`` and ``ce_dataschema`` of a message."""
    return f"el4ner/{source}", f"el4ner.{topic.value}.v1", json_schemas.schema_id(topic.value)


def dead_letter(
    record: Record, *, stage: str, error: DocumentError, document: str | None, attempts: int, now_ms: int
) -> Outgoing:
    """The message that a stage gave up on: key, value and headers untouched, then why, when and where from.

    The letter's own headers follow the original ones and begin with ``el4ner-stage``: whatever the original headers
    are called, :mod:`workers.dead_letters.letters` finds them again. A message that was replayed keeps the time of its
    first failure.
    """
    replay = read_replay(record.headers)
    first = now_ms if replay.first_failed_at_ms is None else replay.first_failed_at_ms
    reasons = {
        "stage": stage,
        "error-code": error.code,
        "error-message": _bounded(str(error)),
        "topic": record.source,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp_ms),
        "attempts": str(attempts),
        "failed-at": str(now_ms),
        "first-failed-at": str(first),
        "replays": str(replay.count),
    }
    if document is not None:
        reasons["document-id"] = document
    added = tuple((f"{DEAD_LETTER_PREFIX}{name}", text.encode()) for name, text in reasons.items())
    return Outgoing(Topic.DEAD_LETTERS, record.key, record.value, record.headers + added)


def _bounded(reason: str) -> str:
    clean = reason.encode("utf-8", "replace").decode()
    return clean if len(clean) <= _MAX_REASON else clean[: _MAX_REASON - 1] + "…"
