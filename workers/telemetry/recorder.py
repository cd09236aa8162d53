"""What the workers record of themselves: metrics and spans, together. No Kafka in here.

What a stage records of its answers is :mod:`workers.stages.stage_telemetry`, what the join records of its outcomes
:mod:`workers.join.join_telemetry`; both are a :class:`WorkerRecorder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from workers.config import StreamSettings
from workers.messages.headers import Trace
from workers.telemetry.metrics import Metrics
from workers.telemetry.trace_spans import NoSpans, TraceSpans, consumed
from workers.telemetry.tracing import open_spans
from workers.topics import app_id

__all__ = ["Telemetry", "WorkerRecorder"]


@dataclass(frozen=True)
class Telemetry:
    """The metrics and spans of one process."""

    settings: StreamSettings
    metrics: Metrics
    spans: TraceSpans

    @classmethod
    def of(cls, settings: StreamSettings, stages: Sequence[str]) -> Telemetry:
        """As the settings say.

        Raises:
            ConfigError: tracing is on, and OpenTelemetry is not there or asked for something else.
        """
        release = version("el4ner")
        spans = open_spans(settings.worker.tracing, version=release)
        metrics = Metrics(version=release, stages=stages)
        metrics.observe("el4ner_spans_total", spans.counts)
        return cls(settings, metrics, spans)


class WorkerRecorder:
    """What every worker records.

    ``clock_ms``: the wall clock. ``group``: of :class:`workers.kafka.stage_app.StageApp`; None: the stage's name.
    """

    def __init__(
        self, telemetry: Telemetry, stage: str, *, clock_ms: Callable[[], int], group: str | None = None
    ) -> None:
        self.metrics = telemetry.metrics
        self._spans = telemetry.spans
        self._traces = not isinstance(telemetry.spans, NoSpans)
        self._stage = stage
        self._group = app_id(telemetry.settings.kafka, group or stage)
        self._clock_ms = clock_ms

    def retried(self, code: str) -> None:
        """Something is tried again, after an error with that code."""
        self.metrics.retried(self._stage, code)

    def assigned(self) -> None:
        """Partitions were assigned."""
        self.metrics.rebalanced(self._stage)

    def letter(self, code: str) -> None:
        """A dead letter is delivered."""
        self.letter_of(self._stage, code)

    def letter_of(self, stage: str, code: str) -> None:
        """A dead letter is delivered, which says that ``stage`` gave up."""
        self.metrics.dead_letter(stage, code)

    def _span(
        self,
        name: str,
        trace: Trace,
        parent: Trace | None,
        *,
        began_ms: int,
        ended_ms: int,
        error: str | None = None,
        **message: Any,
    ) -> None:
        """A span has ended. ``message``: where it began, as :func:`~workers.telemetry.tracing.consumed` takes it."""
        attributes = consumed(stage=self._stage, group=self._group, **message)
        self._spans.record(name, trace, parent, began_ms * 1_000_000, ended_ms * 1_000_000, attributes, error=error)
