"""OpenTelemetry spans of the documents' journey, across topics and processes; exporting them takes el4ner[otel].

Every message carries the ids of its span (:mod:`workers.messages.headers`), whether or not anybody collects spans. So a
span is recorded after the fact, with exactly these ids, when the message that bears them is delivered: what downstream
reads in ``traceparent`` is the span that is found in the trace. :mod:`workers.telemetry.otel` exports them; it is
imported only where ``worker.tracing`` is on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

from el4ner.errors import ConfigError
from workers.messages.headers import Trace

__all__ = ["Attributes", "Kind", "NoSpans", "Spans", "consumed", "open_spans"]

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["consumer", "producer", "internal"]

_SHARES: Final = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}


class Spans(Protocol):
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


class NoSpans:
    """Tracing is off: everything is forgotten."""

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
        """See :class:`Spans`."""

    def counts(self) -> Mapping[tuple[str, ...], float]:
        """See :class:`Spans`."""
        return {}

    def close(self, seconds: float) -> None:
        """See :class:`Spans`."""


def open_spans(enabled: bool, *, version: str, environ: Mapping[str, str] = os.environ) -> Spans:
    """Spans by ``worker.tracing`` and the standard ``OTEL_*`` variables.

    ``environ`` is for the variables that are read here; where to export to, and how, the SDK reads from the process's.

    Raises:
        ConfigError: el4ner[otel] is not installed, or a variable asks for what it does not bring.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if not enabled or exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoSpans()
    if exporter != "otlp":
        raise ConfigError(f"OTEL_TRACES_EXPORTER: expected 'otlp' or 'none', not {exporter!r}")
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        protocol = environ.get(name) or "http/protobuf"
        if protocol != "http/protobuf":
            raise ConfigError(f"{name}: el4ner[otel] brings 'http/protobuf' alone, not {protocol!r}")
    share = _share(environ)
    try:
        from workers.telemetry import otel
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ConfigError(
            "worker.tracing: OpenTelemetry is not installed; install el4ner[otel], or set worker.tracing to false"
        ) from error
    return otel.open_exporter(version=version, share=share, environ=environ)


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


def _share(environ: Mapping[str, str]) -> float:
    """The share of traces to keep, by ``OTEL_TRACES_SAMPLER`` and its argument."""
    sampler = environ.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    plain = sampler.removeprefix("parentbased_")
    if plain not in _SHARES:
        raise ConfigError(
            f"OTEL_TRACES_SAMPLER: expected {', '.join(_SHARES)}, or one of them after 'parentbased_', not {sampler!r}"
        )
    share = _SHARES[plain]
    if share is not None:
        return share
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG") or "1"
    try:
        share = float(argument)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, not {argument!r}")
    return share
