"""What a tagged document leads to: its redacted text, or a null in its place. No Kafka in here.

It fails closed. A document whose tagging is not complete, one that a member of the ensemble did not answer, and one
that cannot be redacted are not published: a null value takes back what an earlier revision left. Then there is no
original of it either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from el4ner.errors import ConfigError, DocumentError, MessageError
from el4ner.redaction.key_ring import KeyRing
from el4ner.redaction.redaction_settings import RedactionSettings
from el4ner.redaction.redactor import Detection
from el4ner.redaction.sealed_originals import NONCE_BYTES, sealed
from el4ner.redaction.text_redaction import TextRedaction, redacted_document
from el4ner.serialize import dumps
from workers.messages.envelope import (
    Outgoing,
    Record,
    dead_letter,
    decode_record,
    message_id,
    origin_of,
    outgoing,
)
from workers.messages.headers import RandomBytes, Trace, find, next_trace
from workers.roles import REDACT
from workers.telemetry.metrics import Withheld
from workers.topics import REDACTION, Topic

__all__ = ["RedactedMessages", "RedactionTeller"]


@dataclass(frozen=True, slots=True)
class RedactedMessages:
    """What one message of ``tagged-documents`` leads to.

    Attributes:
        record: that message.
        document: its id; None: it names none.
        messages: all that is to be written, a dead letter first if there is one.
        trace: of what is written.
        error: why it could not be redacted.
        withheld: why the document is not published: the status of its tagging (partial, too, if members did not
            answer), or that it cannot be redacted. None: it is, or it was deleted.
    """

    record: Record
    document: str | None
    messages: Sequence[Outgoing]
    trace: Trace
    error: DocumentError | None = None
    withheld: Withheld | None = None


class RedactionTeller:
    """Says what messages lead to. To be used by one thread at a time.

    ``originals_exist``: the broker has the topic of originals. What is on it is deleted with its document also where
    ``redaction.reversible`` keeps no more of them.

    Raises:
        ConfigError: keys or libraries are missing that the settings need.
    """

    def __init__(
        self,
        settings: RedactionSettings,
        keys: KeyRing | None,
        *,
        originals_exist: bool,
        clock_ms: Callable[[], int],
        random: RandomBytes,
    ) -> None:
        self._settings = settings
        self._redaction = TextRedaction(settings, keys)
        self._topics = REDACTION if settings.reversible or originals_exist else (Topic.REDACTED_DOCUMENTS,)
        self._key = None if keys is None or not settings.reversible else keys.current
        self._clock_ms = clock_ms
        self._random = random
        if settings.reversible:
            if self._key is None:
                raise ConfigError("redaction.reversible needs a key: el4ner redact keygen")
            sealed(b"", "", 0, self._key, bytes(NONCE_BYTES))  # whether the library is there

    def tell(self, record: Record) -> RedactedMessages:
        """What the message leads to; whatever is wrong with its document is in there."""
        trace = next_trace(record.headers, self._random)
        document = _document(record)
        if record.value is None:
            return RedactedMessages(record, document, self._nulls(record, document, trace), trace)
        try:
            tagged = decode_record(record)
            if document is None:
                raise MessageError("the message has no document id as its key", code="schema")
            if (withheld := _withheld(tagged)) is not None:
                nulls = self._nulls(record, document, trace)
                return RedactedMessages(record, document, nulls, trace, withheld=withheld)
            messages = self._redacted(record, document, tagged, trace)
        except DocumentError as error:
            return self.refused(record, error, trace=trace)
        return RedactedMessages(record, document, messages, trace)

    def refused(self, record: Record, error: DocumentError, *, trace: Trace | None = None) -> RedactedMessages:
        """A message that leads to nothing but a dead letter, and to nulls."""
        trace = next_trace(record.headers, self._random) if trace is None else trace
        document = _document(record)
        now = self._clock_ms()
        letter = dead_letter(record, stage=REDACT, error=error, document=document, attempts=1, now_ms=now)
        messages = [letter, *self._nulls(record, document, trace)]
        return RedactedMessages(record, document, messages, trace, error, "error")

    def _redacted(self, record: Record, document: str, tagged: Mapping[str, Any], trace: Trace) -> Sequence[Outgoing]:
        text, pool, revision = tagged["text"], tagged["pool"], tagged["revision"]
        if text is None or pool is None or tagged["id"] != document:
            raise MessageError("a complete document has a text, a pool, and its id as its key", code="schema")
        entities = [
            Detection(each["start"], each["end"], each["type"], each["confidence"]) for each in tagged["entities"]
        ]
        redacted = self._redaction.redact(text, entities, pool=pool)
        metadata = tagged.get("metadata", {})
        value = redacted_document(
            redacted, self._settings, document=document, revision=revision, pool=pool, metadata=metadata
        )
        values: dict[Topic, Mapping[str, Any]] = {Topic.REDACTED_DOCUMENTS: value}
        if self._key is not None and record.value is not None:
            nonce = self._random(NONCE_BYTES)
            # Who reveals an original need not ask a registry for its schema.
            original = record.value if record.schema is None else dumps(tagged)
            values[Topic.REDACTED_ORIGINALS] = sealed(original, document, revision, self._key, nonce)
        # An original that an earlier revision left is not kept beside a text that is not its own.
        return [self._message(topic, record, document, values.get(topic), trace) for topic in self._topics]

    def _nulls(self, record: Record, document: str | None, trace: Trace) -> list[Outgoing]:
        if document is None:
            return []
        return [self._message(topic, record, document, None, trace) for topic in self._topics]

    def _message(
        self, topic: Topic, record: Record, document: str, value: Mapping[str, Any] | None, trace: Trace
    ) -> Outgoing:
        event = find(record.headers, "ce_id")
        return outgoing(
            topic,
            value,
            key=document,
            subject=document,
            # The same outcome gives the same id.
            event_id=message_id(document, record.offset, REDACT, event.decode("utf-8", "replace") if event else None),
            source=REDACT,
            now_ms=self._clock_ms(),
            trace=trace,
            partition=record.partition,
            more=origin_of(record).headers,
        )


def _withheld(tagged: Mapping[str, Any]) -> Withheld | None:
    """Why names may be missing in what is tagged; None: all that was to look for them has answered."""
    if tagged["status"] != "complete":
        status: Withheld = tagged["status"]
        return status
    return "partial" if any(manifest.get("missing_members") for manifest in tagged["manifests"].values()) else None


def _document(record: Record) -> str | None:
    try:
        return record.key.decode() if record.key else None
    except UnicodeDecodeError:
        return None
