"""What the workers tell of themselves: metrics and spans, recorded together. No Kafka in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from el4ner.errors import DocumentError
from workers.config import StreamSettings
from workers.join.rules import Outcome
from workers.messages.headers import RandomBytes, Trace, next_trace, parse_traceparent
from workers.stages.isolation import Result
from workers.stages.stage import StageAnswer
from workers.telemetry.metrics import Metrics, TransactionOutcome
from workers.telemetry.tracing import NoSpans, Spans, consumed, open_spans
from workers.topics import Topic, app_id, topic_name

__all__ = ["StageTelemetry", "Telemetry"]


@dataclass(frozen=True)
class Telemetry:
    """One process's."""

    settings: StreamSettings
    metrics: Metrics
    spans: Spans

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

    def stage(
        self, name: str, *, clock_ms: Callable[[], int], random: RandomBytes, group: str | None = None
    ) -> StageTelemetry:
        """A stage's part. ``group``: as :class:`workers.kafka.stage_app.StageApp` has it."""
        return StageTelemetry(self, name, clock_ms=clock_ms, random=random, group=group or name)


class StageTelemetry:
    """What a stage tells. ``clock_ms`` is the wall clock."""

    def __init__(
        self, telemetry: Telemetry, stage: str, *, clock_ms: Callable[[], int], random: RandomBytes, group: str
    ) -> None:
        kafka = telemetry.settings.kafka
        self.metrics = telemetry.metrics
        self._spans = telemetry.spans
        self._traces = not isinstance(telemetry.spans, NoSpans)
        self._stage = stage
        self._group = app_id(kafka, group)
        self._documents = topic_name(kafka, Topic.DOCUMENTS)
        self._clock_ms = clock_ms
        self._random = random

    def called(self, seconds: float) -> None:
        """An engine was at a call for that long."""
        self.metrics.engine_busy(seconds)

    def batch(self, results: Sequence[Result[Any]], seconds: float) -> None:
        """An engine is through with a batch."""
        self.metrics.stage_batch(self._stage, len(results), seconds)
        prompt = cached = new = 0
        for result in results:
            if not isinstance(result.value, DocumentError):
                usage = result.value.usage
                prompt += usage.prompt_tokens
                cached += usage.cached_tokens
                new += usage.new_tokens
        self.metrics.tokens(self._stage, prompt=prompt, cached=cached, new=new)

    def retried(self, code: str) -> None:
        """Something is tried again."""
        self.metrics.retried(self._stage, code)

    def assigned(self) -> None:
        """Partitions were assigned."""
        self.metrics.rebalanced(self._stage)

    def letter(self, code: str) -> None:
        """A dead letter is delivered that is no stage's answer."""
        self.metrics.dead_letter(self._stage, code)

    def answered(self, answers: Sequence[StageAnswer], *, began_ms: int) -> None:
        """Answers are delivered; work on them began at ``began_ms``."""
        now = self._clock_ms()
        for answer in answers:
            record = answer.record
            failed, deleted = answer.error is not None, record.value is None
            self.metrics.answered(self._stage, "failed" if failed else "deleted" if deleted else "ok")
            # A document that all members failed on, each with a letter of its own, fails without another one.
            if answer.error is not None and answer.messages[0].topic is Topic.DEAD_LETTERS:
                self.metrics.dead_letter(self._stage, answer.error.code)
            trace = self._trace_of(answer) if self._traces else None
            if record.timestamp_ms >= 0:
                seconds = max(0.0, (now - record.timestamp_ms) / 1000)
                self.metrics.stage_latency(self._stage, seconds, trace_id=None if trace is None else trace.trace_id)
            if trace is not None:
                self._spans.record(
                    f"process {record.topic.value}",
                    trace,
                    parse_traceparent(record.headers),
                    began_ms * 1_000_000,
                    now * 1_000_000,
                    consumed(
                        stage=self._stage,
                        group=self._group,
                        source=record.source,
                        partition=record.partition,
                        offset=record.offset,
                        document=answer.document,
                        deleted=deleted,
                    ),
                    error=None if answer.error is None else answer.error.code,
                )

    def _trace_of(self, answer: StageAnswer) -> Trace | None:
        if answer.document is None:
            # Its one message is the dead letter, which bears the ids that came in.
            return next_trace(answer.record.headers, self._random)
        return parse_traceparent(answer.messages[-1].headers)

    def settled(self, outcomes: Sequence[tuple[Outcome, Trace]], *, partition: int, began_ms: int) -> None:
        """Outcomes are committed, each with the trace that its message carries."""
        now = self._clock_ms()
        for outcome, trace in outcomes:
            entities = () if outcome.tagged is None else outcome.tagged["entities"]
            self.metrics.tagged(outcome.closed.status, Counter(entity["type"] for entity in entities))
            if outcome.origin.timestamp_ms >= 0:
                seconds = max(0.0, (now - outcome.origin.timestamp_ms) / 1000)
                self.metrics.end_to_end(seconds, trace_id=trace.trace_id if self._traces else None)
            if self._traces:
                parent = (
                    None if outcome.trace is None else parse_traceparent((("traceparent", outcome.trace.encode()),))
                )
                self._spans.record(
                    "join documents",
                    trace,
                    parent,
                    began_ms * 1_000_000,
                    now * 1_000_000,
                    consumed(
                        stage=self._stage,
                        group=self._group,
                        source=self._documents,
                        partition=partition,
                        offset=outcome.origin.position,
                        document=outcome.id,
                        deleted=outcome.tagged is None,
                    ),
                )

    def transaction(self, outcome: TransactionOutcome, seconds: float) -> None:
        """A transaction has ended."""
        self.metrics.transaction(outcome, seconds)
