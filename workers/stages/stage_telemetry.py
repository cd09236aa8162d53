"""What a stage records: the engine's calls, and the answers that are delivered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from el4ner.errors import DocumentError
from workers.messages.envelope import Outgoing, Record, coordinates
from workers.messages.headers import RandomBytes, Trace, next_trace, parse_traceparent
from workers.stages.isolation import Result
from workers.stages.stage import StageAnswer
from workers.telemetry.recorder import Telemetry, WorkerRecorder
from workers.topics import Topic

__all__ = ["StageTelemetry", "ToldMessage", "log_failure"]

log = logging.getLogger(__name__)


class ToldMessage(Protocol):
    """What a message leads to, where no model is asked."""

    @property
    def record(self) -> Record:
        """That message."""

    @property
    def document(self) -> str | None:
        """The id of its document; None: it names none."""

    @property
    def messages(self) -> Sequence[Outgoing]:
        """All that is to be written, a dead letter first if there is one."""

    @property
    def trace(self) -> Trace:
        """Of what is written."""

    @property
    def error(self) -> DocumentError | None:
        """Why there is a dead letter."""


class StageTelemetry(WorkerRecorder):
    """The metrics and spans of one stage."""

    def __init__(
        self,
        telemetry: Telemetry,
        stage: str,
        *,
        clock_ms: Callable[[], int],
        random: RandomBytes,
        group: str | None = None,
    ) -> None:
        super().__init__(telemetry, stage, clock_ms=clock_ms, group=group)
        self._random = random

    def called(self, seconds: float) -> None:
        """An engine worked on a call for that long."""
        self.metrics.engine_busy(seconds)

    def batch(self, results: Sequence[Result[Any]], seconds: float) -> None:
        """An engine has finished a batch."""
        self.metrics.stage_batch(self._stage, len(results), seconds)
        prompt = cached = new = 0
        for result in results:
            if not isinstance(result.value, DocumentError):
                usage = result.value.usage
                prompt += usage.prompt_tokens
                cached += usage.cached_tokens
                new += usage.new_tokens
        self.metrics.tokens(self._stage, prompt=prompt, cached=cached, new=new)

    def answered(self, answers: Sequence[StageAnswer], *, began_ms: int) -> None:
        """Answers are delivered; work on them began at ``began_ms``."""
        now = self._clock_ms()
        for answer in answers:
            # Where all members failed, each has sent its own dead letter: the stage's failure has none.
            if answer.error is not None and answer.messages[0].topic is Topic.DEAD_LETTERS:
                self.letter(answer.error.code)
            trace = self._trace_of(answer) if self._traces else None
            self.told(
                answer.record,
                document=answer.document,
                error=answer.error,
                deleted=answer.deletes,
                trace=trace,
                began_ms=began_ms,
                now_ms=now,
            )

    def delivered(self, told: ToldMessage, *, began_ms: int) -> None:
        """What a message leads to is delivered, and so is the line about what was given up; work on it began at
        ``began_ms``."""
        if told.error is not None:
            self.letter(told.error.code)
            log_failure(self._stage, told.record, told.document, told.trace, told.error)
        self.told(
            told.record,
            document=told.document,
            error=told.error,
            deleted=told.record.value is None,
            trace=told.trace,
            began_ms=began_ms,
            now_ms=self._clock_ms(),
        )

    def told(
        self,
        record: Record,
        *,
        document: str | None,
        error: DocumentError | None,
        deleted: bool,
        trace: Trace | None,
        began_ms: int,
        now_ms: int,
    ) -> None:
        """The answer to a message is delivered."""
        failed = error is not None
        self.metrics.answered(self._stage, "failed" if failed else "deleted" if deleted else "ok")
        trace = trace if self._traces else None
        if record.timestamp_ms >= 0:
            seconds = max(0.0, (now_ms - record.timestamp_ms) / 1000)
            self.metrics.stage_latency(self._stage, seconds, trace_id=None if trace is None else trace.trace_id)
        if trace is not None:
            self._span(
                f"process {record.topic.value}",
                trace,
                parse_traceparent(record.headers),
                began_ms=began_ms,
                ended_ms=now_ms,
                source=record.source,
                partition=record.partition,
                offset=record.offset,
                document=document,
                deleted=deleted,
                error=None if error is None else error.code,
            )

    def _trace_of(self, answer: StageAnswer) -> Trace | None:
        if answer.document is None:
            # Its one message is the dead letter, which has the trace ids of the message that came in.
            return next_trace(answer.record.headers, self._random)
        return parse_traceparent(answer.messages[-1].headers)


def log_failure(stage: str, record: Record, document: str | None, trace: Trace | None, error: DocumentError) -> None:
    """A line about a document that was given up."""
    extra = {
        "stage": stage,
        "code": error.code,
        "document_id": document,
        "trace_id": None if trace is None else trace.trace_id,
        "source": coordinates(record),
    }
    log.warning("%s gave up on a document: %s", stage, error, extra=extra)
