"""Which names a tagged document has: what it leads to on ``entity-occurrences``. No Kafka in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from el4ner.canonical.in_document import full_names
from el4ner.canonical.name_book import NamedDocument
from el4ner.errors import DocumentError, MessageError
from el4ner.serialize import fingerprint
from workers.messages.envelope import Outgoing, Record, dead_letter, decode_record, message_id, origin_of, outgoing
from workers.messages.headers import RandomBytes, Trace, next_trace
from workers.roles import ENTITIES
from workers.topics import Topic

__all__ = ["OccurrenceMessages", "OccurrenceTeller", "named_document"]


@dataclass(frozen=True, slots=True)
class OccurrenceMessages:
    """What one message of ``tagged-documents`` leads to; ``document`` None: it names none. ``error``: why it cannot be
    read; nothing of its document counts then."""

    record: Record
    document: str | None
    messages: list[Outgoing]
    trace: Trace
    error: DocumentError | None = None


class OccurrenceTeller:
    """Says what messages lead to."""

    def __init__(self, *, clock_ms: Callable[[], int], random: RandomBytes) -> None:
        self._clock_ms = clock_ms
        self._random = random

    def tell(self, record: Record) -> OccurrenceMessages:
        """What the message leads to; whatever is wrong with its document is in there."""
        trace = next_trace(record.headers, self._random)
        document = _document(record)
        try:
            tagged = None if record.value is None else decode_record(record)
            if document is None or (tagged is not None and tagged["id"] != document):
                raise MessageError("a tagged document has its id as its key", code="schema")
        except DocumentError as error:
            return self.refused(record, error, trace=trace)
        return OccurrenceMessages(record, document, [self._occurrence(record, document, tagged, trace)], trace)

    def refused(self, record: Record, error: DocumentError, *, trace: Trace | None = None) -> OccurrenceMessages:
        """A message that leads to a dead letter; what an earlier version of its document counted is taken back."""
        trace = next_trace(record.headers, self._random) if trace is None else trace
        document = _document(record)
        now = self._clock_ms()
        messages = [dead_letter(record, stage=ENTITIES, error=error, document=document, attempts=1, now_ms=now)]
        if document is not None:
            messages.append(self._occurrence(record, document, None, trace))
        return OccurrenceMessages(record, document, messages, trace, error)

    def _occurrence(self, record: Record, document: str, tagged: Mapping[str, Any] | None, trace: Trace) -> Outgoing:
        now = self._clock_ms()
        came_in = max(origin_of(record).timestamp_ms, -1)
        time_ms = came_in if came_in >= 0 else record.timestamp_ms if record.timestamp_ms >= 0 else now
        version = [record.timestamp_ms, record.offset]
        value = {
            "document_id": document,
            "version": version,
            # Windows end with the latest document: one from the future would be the end of all others.
            "time_ms": min(time_ms, now),
            "names": [] if tagged is None else _names(tagged),
        }
        return outgoing(
            Topic.ENTITY_OCCURRENCES,
            value,
            key=document,
            subject=document,
            event_id=message_id(document, record.offset, ENTITIES, version),
            source=ENTITIES,
            now_ms=now,
            trace=trace,
            partition=0,
        )


def named_document(value: Mapping[str, Any], arrival: int) -> NamedDocument:
    """The version of a document that a message of ``entity-occurrences`` is about; ``arrival``: its place among all.

    The last to arrive counts, and not the one with the latest timestamp: all versions of a document come through one
    partition of ``tagged-documents``, in their order and once, and their writers' clocks differ.
    """
    return NamedDocument(
        fingerprint(value["document_id"]),
        arrival,
        value["time_ms"],
        tuple((each["type"], each["name"], each["surfaces"]) for each in value["names"]),
    )


def _names(tagged: Mapping[str, Any]) -> list[dict[str, Any]]:
    mentions = [(entity["type"], entity["text"]) for entity in tagged["entities"]]
    counts: dict[tuple[str, str], Counter[str]] = {}
    for (kind, surface), name in zip(mentions, full_names(mentions), strict=True):
        counts.setdefault((kind, name), Counter())[surface] += 1
    return [{"type": kind, "name": name, "surfaces": dict(counted)} for (kind, name), counted in sorted(counts.items())]


def _document(record: Record) -> str | None:
    try:
        return record.key.decode() if record.key else None
    except UnicodeDecodeError:
        return None
