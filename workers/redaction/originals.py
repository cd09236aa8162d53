"""Reading the encrypted original of a document from the broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from el4ner.redaction.sealed_originals import RevealError
from workers.config import KafkaSettings
from workers.kafka.topic_reader import reading, records_between
from workers.messages.envelope import decode
from workers.topics import Topic, topic_name

__all__ = ["latest_original"]


def latest_original(settings: KafkaSettings, document: str) -> Mapping[str, Any]:
    """The last message of ``redacted-originals`` about a document. All of the topic is read for it.

    Raises:
        RevealError: there is none, it was deleted, or the topic cannot be read.
        MessageError: it is no such message.
    """
    name, key = topic_name(settings, Topic.REDACTED_ORIGINALS), document.encode()
    value: bytes | None = None
    with reading(settings, name, RevealError, client_id="el4ner-reveal") as (consumer, partitions):
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        for record in records_between(settings, consumer, begins, ends, RevealError):
            if record.key == key:
                value = record.value
    if value is None:
        raise RevealError(f"{document}: there is no original of it on {name}")
    return decode(Topic.REDACTED_ORIGINALS, value)
