"""Producing documents, each with its delivery confirmed (kafka-python; for programs and the command line)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from kafka.errors import KafkaError

from el4ner.errors import El4nerError
from el4ner.serialize import dumps, fingerprint
from workers import schemas
from workers.config import StreamSettings
from workers.headers import RandomBytes, cloud_event, next_trace
from workers.inputs import NewDocument
from workers.sending import Confirmed, sending
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
    delivered: Callable[[NewDocument], None] | None = None,
    source: str = "produce",
    random: RandomBytes = os.urandom,
) -> Produced:
    """Send documents to the ``documents`` topic and wait until the broker has every one.

    ``documents`` may be endless: each is sent as it comes. ``delivered`` is called for each, in order, on this thread,
    when its delivery is confirmed (at the latest when the next one comes, or the iterator ends).

    Raises:
        ProduceError: no broker, or a document that it did not take; those that were reported are delivered.
    """
    started = time.monotonic()
    name = topic_name(settings.kafka, Topic.DOCUMENTS)
    schema = schemas.schema_id(Topic.DOCUMENTS.value)
    confirmed: Confirmed[NewDocument] = Confirmed(
        settings.kafka,
        most=_IN_FLIGHT,
        delivered=lambda document, _: None if delivered is None else delivered(document),
        failed=lambda document, error: ProduceError(f"document {document.id!r} was not delivered to {name}: {error}"),
    )
    size = settings.kafka.max_message_bytes
    with sending(settings.kafka, ProduceError, client_id="el4ner-produce", max_request_size=size) as producer:
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
            except KafkaError as error:
                raise ProduceError(f"document {document.id!r} cannot be sent to {name}: {error}") from error
            confirmed.add(document, future)
        confirmed.finish(producer)
    return Produced(confirmed.count, time.monotonic() - started)
