"""Producing documents, each with its delivery confirmed (kafka-python; for programs and the command line)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from kafka.errors import KafkaError, MessageSizeTooLargeError

from el4ner.errors import El4nerError
from el4ner.serialize import dumps, fingerprint
from workers.config import StreamSettings
from workers.inputs.documents import NewDocument
from workers.kafka.topic_sender import Confirmations, sending
from workers.messages import json_schemas
from workers.messages.headers import RandomBytes, cloud_event, next_trace
from workers.topics import Topic, topic_name

__all__ = ["ProduceError", "Produced", "produce_documents"]

_IN_FLIGHT: Final = 1_000


class ProduceError(El4nerError):
    """The broker cannot be reached, or a document was not delivered."""

    code = "produce"


@dataclass(frozen=True, slots=True)
class Produced:
    """Documents that the broker has confirmed, and how long it took."""

    documents: int
    seconds: float


def produce_documents(
    settings: StreamSettings,
    documents: Iterable[NewDocument],
    *,
    delivered: Callable[[NewDocument], None] = lambda _: None,
    undelivered: Callable[[NewDocument], None] = lambda _: None,
    too_large: Callable[[NewDocument, str], None] | None = None,
    source: str = "produce",
    random: RandomBytes = os.urandom,
) -> Produced:
    """Send documents to the ``documents`` topic and wait until the broker has every one.

    ``documents`` may be endless: each is sent as it comes. ``delivered`` is called for each, in order, on this thread,
    when its delivery is confirmed (at the latest when the next one comes, or the iterator ends). Whatever is raised,
    also by ``documents``: what is on its way is waited for and reported before, to ``undelivered`` what the broker has
    not confirmed, then to ``delivered`` what it has.

    ``too_large`` is told of a document whose message is larger than is allowed, and why; what it raises ends it all.

    Raises:
        ProduceError: no broker, or a document that it did not take; those that were reported are delivered.
    """
    started = time.monotonic()
    name = topic_name(settings.kafka, Topic.DOCUMENTS)
    schema = json_schemas.schema_id(Topic.DOCUMENTS.value)

    def failed(document: NewDocument, error: KafkaError) -> ProduceError | None:
        if isinstance(error, MessageSizeTooLargeError) and too_large is not None:
            too_large(document, _too_large(document, settings, f"the topic {name}"))
            return None
        return ProduceError(f"document {document.id!r} was not delivered to {name}: {error}")

    confirmed: Confirmations[NewDocument] = Confirmations(
        settings.kafka,
        most=_IN_FLIGHT,
        delivered=lambda document, _: delivered(document),
        failed=failed,
    )
    size = settings.kafka.max_message_bytes
    with sending(settings.kafka, ProduceError, client_id="el4ner-produce", max_request_size=size) as producer:
        try:
            for document in documents:
                headers = cloud_event(
                    event_id=fingerprint(document.id, document.revision, "document", document.text, document.pool),
                    source=f"el4ner/{source}",
                    event_type="el4ner.documents.v1",
                    time_ms=time.time_ns() // 1_000_000,
                    subject=document.id,
                    schema=schema,
                    trace=next_trace((), random),
                )
                try:
                    future = producer.send(
                        name, key=document.id.encode(), value=dumps(document.to_json()), headers=list(headers)
                    )
                except MessageSizeTooLargeError as error:
                    reason = _too_large(document, settings, "kafka.max_message_bytes")
                    if too_large is None:
                        raise ProduceError(f"document {document.id!r} cannot be sent to {name}: {reason}") from error
                    too_large(document, reason)
                    continue
                except KafkaError as error:
                    undelivered(document)
                    raise ProduceError(f"document {document.id!r} cannot be sent to {name}: {error}") from error
                confirmed.add(document, future)
            confirmed.finish(producer)
        except BaseException:
            confirmed.drain(producer, undelivered)
            raise
    return Produced(confirmed.count, time.monotonic() - started)


def _too_large(document: NewDocument, settings: StreamSettings, limit: str) -> str:
    size = len(dumps(document.to_json()))
    return (
        f"is too large a message: {size:,} bytes and its headers are more than {limit} allows "
        f"(kafka.max_message_bytes is {settings.kafka.max_message_bytes:,}): split the text, or raise both limits"
    )
