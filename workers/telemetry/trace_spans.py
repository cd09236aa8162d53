"""The spans of a trace: the steps of a document's way across topics and processes. (Not spans of text.)

Every message carries the ids of its span (:mod:`workers.messages.headers`), whether or not anybody collects spans. So a
span is recorded after the fact, with exactly these ids, when the message that bears them is delivered: what downstream
reads in ``traceparent`` is the span that is found in the trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from typing_extensions import override

from workers.messages.headers import Trace

__all__ = ["Attributes", "Kind", "NoSpans", "TraceSpans", "consumed"]

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["consumer", "producer", "internal", "server"]


class TraceSpans(Protocol):
    """Where finished spans go. Recording never waits and never fails; it may be done on any thread."""

    def record(
        self,
        name: str,
        trace: Trace,
        parent: Trace | None,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        *,
        error: str | None = None,
        kind: Kind = "consumer",
        links: Sequence[Trace] = (),
    ) -> None:
        """A span has ended.

        Args:
            name: what was done and to what: ``process documents``.
            trace: the span itself: what the message that came of it carries.
            parent: the span before it: what the message that led to it carried; None: the trace begins here.
            start_ns: wall clock, nanoseconds since 1970.
            end_ns: wall clock too.
            attributes: :func:`consumed`, and what else there is to say. Never text of a document.
            error: the stable code of the error that it ended with.
            kind: its part in messaging.
            links: other spans that led to it: the answers that a join put together.
        """

    def counts(self) -> Mapping[tuple[str, ...], float]:
        """For ``el4ner_spans_total``: spans recorded, exported and dropped since the start."""

    def close(self, seconds: float) -> None:
        """Export what is left, blocking for at most ``seconds``; what is recorded later is dropped."""


class NoSpans(TraceSpans):
    """Tracing is off: everything is forgotten."""

    @override
    def record(self, *_: Any, **__: Any) -> None:
        return

    @override
    def counts(self) -> Mapping[tuple[str, ...], float]:
        return {}

    @override
    def close(self, seconds: float) -> None:
        return


def consumed(
    *,
    stage: str,
    group: str,
    source: str,
    partition: int,
    offset: int,
    document: str | None,
    revision: int | None = None,
    deleted: bool = False,
) -> dict[str, str | int | float | bool]:
    """The attributes of a span that began with a message: OpenTelemetry's conventions for Kafka, and ``el4ner.*``.

    ``source``, ``partition`` and ``offset`` are the message's coordinates, ``group`` the stage's consumer group;
    ``document`` None: nobody knows whose document it was.
    """
    attributes: dict[str, str | int | float | bool] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": source,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
        "messaging.consumer.group.name": group,
        "el4ner.stage": stage,
    }
    if document is not None:
        attributes["el4ner.document_id"] = document
    if revision is not None:
        attributes["el4ner.revision"] = revision
    if deleted:
        attributes["messaging.kafka.message.tombstone"] = True
    return attributes
