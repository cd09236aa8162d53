"""How large a message may be on each topic, and what documents may come to by the settings. Pure.

What a broker compares with a topic's ``max.message.bytes`` is a whole batch as it is sent: a message that does not fit
in with others goes alone, so its batch is the message with its key, its headers and some 70 bytes. Workers do not
compress, so these are the bytes that were written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from el4ner.config import Settings
from workers.config import KafkaSettings, StreamSettings
from workers.messages.envelope import Outgoing
from workers.topics import LETTER_HEADERS_BYTES, Topic, TopicReport, topic_name

__all__ = ["MAX_REQUEST_BYTES", "SizeLimits", "batch_bytes", "expected_bytes", "fits", "record_bytes", "shortage"]

MAX_REQUEST_BYTES: Final = 95 * 1024 * 1024
"""Brokers break the connection off when a request is larger than ``socket.request.max.bytes``, 100 MiB by default."""

_READ: Final = (Topic.SPAN_CANDIDATES, Topic.TYPED_ENTITIES, Topic.VALIDATION_VERDICTS, Topic.MEMBER_ANSWERS)
"""What the stages read of each other."""
_OUTPUTS: Final = (*_READ[:3], Topic.TAGGED_DOCUMENTS)
_MAGIC: Final = 2
_NO_COMPRESSION: Final = 0
_BATCH_HEADER: Final = 61
"""Bytes before the first record of a batch."""

BYTES_A_CHARACTER: Final = 2
"""Of a text as JSON in UTF-8. Latin has 1 to 2, Cyrillic, Greek, Arabic and Hebrew 2, most others 3, controls 6."""
BYTES_A_SPAN: Final = 500
"""Of a stage's message for each proposed span, in an ensemble of two. Measured 150 to 400 (docs/dead-letters.md)."""


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """How large messages may be on each topic.

    ``topics``: ``max.message.bytes`` by the topic's name on the broker; nothing is refused for a topic that is not
    there. ``read``: topics that a stage reads. Their messages have to fit into the dead letters too, with the headers
    of a letter, in case the next stage gives up on one. ``letters``: the name of the topic of dead letters.
    """

    topics: Mapping[str, int] = field(default_factory=dict)
    read: Collection[str] = ()
    letters: str = ""

    @classmethod
    def of(cls, settings: KafkaSettings, reports: Iterable[TopicReport]) -> SizeLimits:
        """As the topics are on the broker."""
        return cls(
            {report.plan.name: report.max_message_bytes for report in reports if report.max_message_bytes is not None},
            frozenset(topic_name(settings, topic) for topic in _READ),
            topic_name(settings, Topic.DEAD_LETTERS),
        )

    def allowed(self, name: str) -> int:
        """Bytes of the largest batch that may be sent to the topic."""
        limit = min(self.topics.get(name, MAX_REQUEST_BYTES), MAX_REQUEST_BYTES)
        letters = self.topics.get(self.letters)
        if name in self.read and letters is not None:
            return min(limit, max(letters - LETTER_HEADERS_BYTES, LETTER_HEADERS_BYTES))
        return limit

    def refusal(self, name: str, message: Outgoing) -> str | None:
        """Why the message does not fit, with the limit and what to change; None: it fits."""
        allowed = self.allowed(name)
        if fits(record_bytes(message), allowed) or (size := batch_bytes(message)) <= allowed:
            return None
        return self.too_large(name, size)

    def too_large(self, name: str, size: int) -> str:
        """The reason to refuse a message of ``size`` bytes, which is too large for the topic."""
        topic_limit, allowed = self.topics.get(name), self.allowed(name)
        less = "or lower method.max_spans or method.max_document_chars"
        if topic_limit is None or topic_limit > MAX_REQUEST_BYTES:
            limit = f"{MAX_REQUEST_BYTES:,} bytes is the most that a broker takes in one request (100 MiB)"
            return f"a message of {size:,} bytes cannot be sent to topic {name!r}: {limit}; lower method.max_spans"
        if allowed < topic_limit:
            limit = f"{allowed:,} bytes is what topic {self.letters!r} could still hold (its max.message.bytes is "
            limit += f"{self.topics[self.letters]:,})"
            topic = self.letters
        else:
            limit = f"its max.message.bytes is {topic_limit:,}"
            topic = name
        return (
            f"a message of {size:,} bytes is too large for topic {name!r}: {limit}; raise kafka.max_message_bytes and "
            f"max.message.bytes of {topic!r} (twice that setting), {less}"
        )


def batch_bytes(message: Outgoing) -> int:
    """Bytes of a batch that holds this message alone."""
    builder: Any = DefaultRecordBatchBuilder(
        _MAGIC,
        _NO_COMPRESSION,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=0,
        batch_size=0,
    )
    builder.append(0, None, key=message.key, value=message.value, headers=list(message.headers))
    return int(builder.size())


def record_bytes(message: Outgoing) -> int:
    """At most what a message adds to a batch, without building one."""
    headers = message.headers
    size = 40 + len(message.key or b"") + len(message.value or b"") + 10 * len(headers)
    for name, value in headers:
        size += 4 * len(name)
        if value:
            size += len(value)
    return size


def fits(record: int, allowed: int) -> bool:
    """Whether a message that adds so many bytes to a batch fits in one of ``allowed`` bytes, in any case."""
    return _BATCH_HEADER + record <= allowed


def expected_bytes(settings: Settings) -> int:
    """What the largest message of a stage takes, for a document that is at every limit of ``[method]``."""
    method, members = settings.method, max(2, len(settings.ensemble.members))
    return BYTES_A_CHARACTER * method.max_document_chars + BYTES_A_SPAN * members // 2 * method.max_spans


def shortage(settings: StreamSettings, limits: SizeLimits) -> str | None:
    """The warning that a document within the limits of ``[method]`` may be too large for the topics that the stages
    write; None: it is not."""
    expected, method = expected_bytes(settings), settings.method
    name = min((topic_name(settings.kafka, topic) for topic in _OUTPUTS), key=limits.allowed)
    allowed = limits.allowed(name)
    if expected <= allowed:
        return None
    most = (
        f"brokers take no more than {MAX_REQUEST_BYTES:,} in one request: lower the limits"
        if expected > MAX_REQUEST_BYTES
        else f"raise kafka.max_message_bytes to {-(-expected // 2) + LETTER_HEADERS_BYTES}, and max.message.bytes of "
        "topics that exist to twice that, or lower the limits"
    )
    return (
        f"topic {name!r} takes messages of {allowed:,} bytes, but a document at the limits "
        f"(method.max_document_chars = {method.max_document_chars}, method.max_spans = {method.max_spans}) comes to "
        f"about {expected:,}: one that turns out larger goes to the dead letters as output-too-large\n{most}"
    )
