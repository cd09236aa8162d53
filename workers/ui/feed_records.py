"""A message of ``tagged-documents`` as the page follows it, and who is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from el4ner.errors import MessageError
from workers.messages.envelope import decode
from workers.topics import Topic
from workers.ui.shown_documents import shown_document

__all__ = ["FeedListener", "FeedRecord"]


@dataclass(frozen=True, slots=True)
class FeedRecord:
    """A message of ``tagged-documents``, as it lies on the broker."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> str:
        """``PARTITION-OFFSET``."""
        return f"{self.partition}-{self.offset}"

    def decoded(self) -> Mapping[str, Any] | None:
        """Its value; None: it breaks the schema, or is a deletion."""
        try:
            return decode(Topic.TAGGED_DOCUMENTS, self.value or b"")
        except MessageError:
            return None

    def shown(self) -> dict[str, Any] | None:
        """As the page shows it, where it has a value."""
        value = self.decoded()
        return None if value is None else shown_document(value, place=self.place, timestamp_ms=self.timestamp_ms)


class FeedListener(Protocol):
    """Is told what comes, in its order."""

    def take(self, record: FeedRecord, value: Mapping[str, Any], /) -> None:
        """A document. ``value``: its message, of which what the feed looks at is as the schema has it."""

    def forget(self, key: bytes, /) -> None:
        """The document with that key was deleted."""

    def begins_at(self, partition: int, /) -> None:
        """What came from there before may have been deleted without our knowing."""
