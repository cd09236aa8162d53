"""What becomes of messages of ``tagged-documents`` in the index: pure functions, the same rules as in PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from el4ner.errors import MessageError
from workers.join.outputs import normalise
from workers.messages.envelope import decode
from workers.topics import Topic

__all__ = ["STATE_FIELDS", "IndexedState", "TaggedMessage", "index_id", "operation", "read_message", "settled"]

STATE_FIELDS: Final = ("revision", "kafka_partition", "kafka_offset", "tagged_at")
"""What has to be known of an indexed document to decide about a message."""
_LONGEST_ID: Final = 512
"""Of OpenSearch, in bytes."""
_LONGEST_ENTITY: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedMessage:
    """A message of the topic. ``value``: None deletes the document. ``timestamp_ms``: of its tagging or deletion."""

    document_id: str
    value: Mapping[str, Any] | None
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedState:
    """Which message an indexed document is of. ``seq_no`` and ``primary_term``: OpenSearch's, of its last change."""

    revision: int
    partition: int
    offset: int
    timestamp_ms: int
    seq_no: int
    primary_term: int


def read_message(record: Any) -> TaggedMessage:
    """A record of kafka-python. Raises ``MessageError`` if its value is no tagged document, or its key no id."""
    try:
        document_id = (record.key or b"").decode()
    except UnicodeDecodeError as error:
        raise MessageError("the key is not UTF-8", code="encoding") from error
    if not document_id:
        raise MessageError("it has no key", code="schema")
    return TaggedMessage(
        document_id=document_id,
        value=None if record.value is None else decode(Topic.TAGGED_DOCUMENTS, record.value),
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
    )


def index_id(document_id: str) -> str:
    """The document's id in the index: its own, or a hash of one that is longer than OpenSearch takes."""
    encoded = document_id.encode()
    return document_id if len(encoded) <= _LONGEST_ID else f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def settled(messages: Iterable[TaggedMessage], state: IndexedState | None) -> TaggedMessage | IndexedState | None:
    """What stays of a document after ``messages`` about it, in the order of the topic, come to ``state``.

    None: it is deleted. ``state`` itself: nothing has changed. A higher revision replaces a lower one, a deletion
    deletes any, and what is older than the state, or is the state, changes nothing.
    """
    current: TaggedMessage | IndexedState | None = state
    for message in messages:
        if current is not None and not _is_after(message, current):
            continue
        if message.value is None:
            current = None
        elif current is None or message.value["revision"] >= _revision(current):
            current = message
    return current


def operation(outcome: TaggedMessage | None, state: IndexedState | None, document_id: str) -> dict[str, Any]:
    """For opensearch-py's bulk helpers. It is refused if the document is not in this state any more."""
    own = {"_id": index_id(document_id)}
    unchanged = {} if state is None else {"if_seq_no": state.seq_no, "if_primary_term": state.primary_term}
    if outcome is None:
        return {"_op_type": "delete", **own, **unchanged}
    return {"_op_type": "create" if state is None else "index", **own, **unchanged, "_source": _source(outcome)}


def _source(message: TaggedMessage) -> dict[str, Any]:
    """The document as ``index.json`` describes it."""
    document = message.value
    assert document is not None
    error = document["error"]
    return {
        "document_id": message.document_id,
        **{name: document.get(name) for name in ("revision", "status", "pool", "text", "metadata")},
        "error": error and {name: error[name] for name in ("stage", "code", "message")},
        "tagged_at": message.timestamp_ms,
        "kafka_partition": message.partition,
        "kafka_offset": message.offset,
        "entities": [_entity(entity) for entity in document["entities"]],
    }


def _entity(entity: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "start": entity["start"],
        "end": entity["end"],
        "type": entity["type"],
        "surface": entity["text"],
        # As the key of entity-mentions, cut: an entity may be as long as a line of a log.
        "entity": f"{entity['type']}:{normalise(entity['text'])}"[:_LONGEST_ENTITY],
        "confidence": entity["confidence"],
    }
    return found | ({"entity_id": entity["entity_id"]} if "entity_id" in entity else {})


def _is_after(message: TaggedMessage, current: TaggedMessage | IndexedState) -> bool:
    """Were the topic made anew, its offsets would begin again, but time would not. Between partitions time alone tells:
    a document has another one since the topic got more."""
    if message.partition != current.partition:
        return message.timestamp_ms >= current.timestamp_ms
    return message.offset > current.offset or message.timestamp_ms > current.timestamp_ms


def _revision(current: TaggedMessage | IndexedState) -> int:
    if isinstance(current, IndexedState):
        return current.revision
    assert current.value is not None
    return int(current.value["revision"])
