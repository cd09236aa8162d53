"""Where the spans of traces go, by ``worker.tracing`` and the standard ``OTEL_*`` variables.

:mod:`workers.telemetry.otel` exports them. It needs el4ner[otel], and is imported only where tracing is on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from el4ner.errors import ConfigError
from workers.telemetry.trace_spans import NoSpans, TraceSpans

__all__ = ["open_spans"]

_SHARES: Final = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}


def open_spans(enabled: bool, *, version: str, environ: Mapping[str, str] = os.environ) -> TraceSpans:
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
