"""What the aggregator emits about a document: its entity mentions, and the tagged document itself. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from el4ner.serialize import fingerprint
from workers.headers import RandomBytes, next_trace
from workers.join import event_id_of
from workers.messages import Outgoing, outgoing
from workers.topics import Topic

__all__ = ["mentions", "normalise", "tagged_document"]


def normalise(surface: str) -> str:
    """A surface for comparison: NFKC, case-folded, white space single."""
    return " ".join(unicodedata.normalize("NFKC", surface).casefold().split())


def mentions(tagged: Mapping[str, Any], *, trace: str | None, now_ms: int, random: RandomBytes) -> list[Outgoing]:
    """One message per entity, keyed by ``type:normalised surface``."""
    headers = _parent(trace)
    event_id = event_id_of(tagged)
    messages = []
    for entity in tagged["entities"]:
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
        }
        messages.append(
            outgoing(
                Topic.ENTITY_MENTIONS,
                value,
                key=f"{entity['type']}:{normalised}",
                subject=tagged["id"],
                event_id=fingerprint(event_id, entity["start"], entity["end"], entity["type"]),
                source="aggregate",
                now_ms=now_ms,
                trace=next_trace(headers, random),
            )
        )
    return messages


def tagged_document(
    tagged: Mapping[str, Any], *, partition: int, trace: str | None, now_ms: int, random: RandomBytes
) -> Outgoing:
    """The tagged document, to the partition that was noted before it was sent."""
    return outgoing(
        Topic.TAGGED_DOCUMENTS,
        tagged,
        key=tagged["id"],
        subject=tagged["id"],
        event_id=event_id_of(tagged),
        source="aggregate",
        now_ms=now_ms,
        trace=next_trace(_parent(trace), random),
        partition=partition,
    )


def _parent(trace: str | None) -> tuple[tuple[str, bytes], ...]:
    return () if trace is None else (("traceparent", trace.encode()),)
