"""What the join records: its outcomes, and the transactions that they are written in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from workers.join.rules import Outcome
from workers.messages.headers import Trace, parse_traceparent
from workers.roles import AGGREGATE
from workers.telemetry.metrics import Status, TransactionOutcome
from workers.telemetry.recorder import Telemetry, WorkerRecorder
from workers.topics import Topic, topic_name

__all__ = ["JoinTelemetry"]


class JoinTelemetry(WorkerRecorder):
    """The join's, for all partitions of a process."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        clock_ms: Callable[[], int],
        stage: str = AGGREGATE,
        group: str | None = None,
    ) -> None:
        super().__init__(telemetry, stage, clock_ms=clock_ms, group=group)
        self._documents = topic_name(telemetry.settings.kafka, Topic.DOCUMENTS)

    def settled(self, outcomes: Sequence[tuple[Outcome, Trace]], *, partition: int, began_ms: int) -> None:
        """Outcomes are committed, each with the trace that its message carries."""
        now = self._clock_ms()
        documents: Counter[Status] = Counter()
        types: dict[Status, Counter[str]] = {}
        for outcome, trace in outcomes:
            status = outcome.closed.status
            documents[status] += 1
            entities = () if outcome.tagged is None else outcome.tagged["entities"]
            types.setdefault(status, Counter()).update([entity["type"] for entity in entities])
            if outcome.origin.timestamp_ms >= 0:
                seconds = max(0.0, (now - outcome.origin.timestamp_ms) / 1000)
                self.metrics.end_to_end(seconds, trace_id=trace.trace_id if self._traces else None)
            if self._traces:
                parent = (
                    None if outcome.trace is None else parse_traceparent((("traceparent", outcome.trace.encode()),))
                )
                self._span(
                    "join documents",
                    trace,
                    parent,
                    began_ms=began_ms,
                    ended_ms=now,
                    source=self._documents,
                    partition=partition,
                    offset=outcome.origin.position,
                    document=outcome.id,
                    deleted=outcome.tagged is None,
                )
        for status, count in documents.items():
            self.metrics.tagged(status, types[status], count)

    def transaction(self, outcome: TransactionOutcome, seconds: float) -> None:
        """A transaction has ended."""
        self.metrics.transaction(outcome, seconds)
