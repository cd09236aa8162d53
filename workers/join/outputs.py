"""What the aggregator emits about a document: its entity mentions, and the tagged document itself. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from el4ner.serialize import dumps, fingerprint
from workers.messages.envelope import Origin, Outgoing, headers_in_common, message_id, outgoing
from workers.messages.headers import TRACEPARENT, Headers, RandomBytes, Trace, with_id
from workers.roles import AGGREGATE
from workers.topics import Topic

__all__ = ["deletion", "mentions", "normalise", "parent", "tagged_document"]


@lru_cache(maxsize=8_192)  # names come again
def normalise(surface: str) -> str:
    """A surface for comparison: NFKC, case-folded, white space single."""
    return " ".join(unicodedata.normalize("NFKC", surface).casefold().split())


def mentions(
    tagged: Mapping[str, Any], ids: Sequence[str], event_id: str, *, trace: Trace, now_ms: int, random: RandomBytes
) -> list[Outgoing]:
    """One message per entity, keyed by ``type:normalised surface``. ``ids``: of the entities
    (:func:`workers.messages.entity_ids.entity_ids`); ``event_id`` and ``trace`` are the document's."""
    messages: list[Outgoing] = []
    if not tagged["entities"]:
        return messages
    # A document has several, which differ in little: what they have in common is made once.
    common = headers_in_common(
        Topic.ENTITY_MENTIONS, source=AGGREGATE, subject=tagged["id"], now_ms=now_ms, state=trace.state
    )
    for entity, each_id in zip(tagged["entities"], ids, strict=True):
        normalised = normalise(entity["text"])
        value = {
            "document_id": tagged["id"],
            "revision": tagged["revision"],
            "start": entity["start"],
            "end": entity["end"],
            "text": entity["text"],
            "type": entity["type"],
            "confidence": entity["confidence"],
            "pool": tagged["pool"],
            "normalised": normalised,
            "entity_id": each_id,
        }
        mention_id = fingerprint(event_id, entity["start"], entity["end"], entity["type"])
        headers = with_id(common, mention_id, trace.child_parent(random))
        key = f"{entity['type']}:{normalised}".encode()
        messages.append(Outgoing(Topic.ENTITY_MENTIONS, key, dumps(value), headers))
    return messages


def tagged_document(
    tagged: Mapping[str, Any], event_id: str, origin: Origin, *, partition: int, trace: Trace, now_ms: int
) -> Outgoing:
    """The tagged document, to the partition number of its document. ``event_id``:
    :func:`workers.join.rules.event_id_of`."""
    return outgoing(
        Topic.TAGGED_DOCUMENTS,
        tagged,
        key=tagged["id"],
        subject=tagged["id"],
        event_id=event_id,
        source=AGGREGATE,
        now_ms=now_ms,
        trace=trace,
        partition=partition,
        more=origin.headers,
    )


def deletion(document: str, origin: Origin, *, partition: int, trace: Trace, now_ms: int) -> Outgoing:
    """The null value that deletes a tagged document."""
    return outgoing(
        Topic.TAGGED_DOCUMENTS,
        None,
        key=document,
        subject=document,
        event_id=message_id(document, origin.position, AGGREGATE, None),
        source=AGGREGATE,
        now_ms=now_ms,
        trace=trace,
        partition=partition,
        more=origin.headers,
    )


def parent(trace: str | None) -> Headers:
    """The header that names the trace of what was before."""
    return () if trace is None else ((TRACEPARENT, trace.encode()),)
