"""The streaming shell around a stage: batches, the engine on its own thread, acknowledgement after delivery.

A message is finished (its offset may be committed) only when every message that it leads to is delivered. There are
three kinds of failures:

- *may pass* (no broker, no leader, an engine that is away or out of memory): the worker tries again, with backoff, or
  in halves of the batch.
- *cannot pass* (a document that cannot be read, that an engine fails on alone, or whose answer no broker takes): the
  document gets a dead letter and a failed answer at once. Beyond a limit (:mod:`workers.stages.failure_limit`) the
  worker stops instead.
- *bug*: anything else that is raised ends the worker, and the messages come again. So does an engine that hangs. A
  document may do this to worker after worker, at the engine or when its answer is written down and delivered. Their
  crash journals (:mod:`workers.stages.crash_journal`) show which document it is.

Faust acknowledges in a ``finally``; its acknowledgements do not count (:mod:`workers.kafka.offsets`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record
from workers.messages.headers import RandomBytes, parse_traceparent
from workers.stages.answer_delivery import AnswerDelivery
from workers.stages.batch_worker import BatchWorker, Received
from workers.stages.crash_journal import CrashJournal
from workers.stages.engine_calls import EngineCalls, Owner
from workers.stages.isolation import Result
from workers.stages.stage import Deleted, Failure, Stage, StageAnswer, Work
from workers.stages.stage_telemetry import StageTelemetry, log_failure
from workers.stages.unread_pools import ALL_READ, UnreadPools
from workers.telemetry.recorder import Telemetry

__all__ = ["StageWorker"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Worked:
    """Work with the engine's result."""

    work: Work[Any]
    result: Result[Any]

    @property
    def record(self) -> Record:
        return self.work.record


class StageWorker(BatchWorker):
    """One stage's agent."""

    def __init__(
        self,
        app: StageApp,
        stage: Stage[Any, Any],
        owner: Owner,
        *,
        clock_ms: Callable[[], int],
        random: RandomBytes,
        telemetry: Telemetry,
        pools: UnreadPools = ALL_READ,
    ) -> None:
        worker = app.settings.worker
        # What passed would be answered again after a crash, however long one before it had waited: nobody remembers
        # a stage's answers for that long.
        super().__init__(app, stage.input, owner, pools, ahead=0)
        self._clock_ms = clock_ms
        self._random = random
        self._telemetry = StageTelemetry(telemetry, stage.name, clock_ms=clock_ms, random=random, group=app.group)
        self._journal = CrashJournal(worker.data_dir, stage.journal_name)
        self._delivery = AnswerDelivery(app, self._journal, self._telemetry, self._smaller)
        self._calls = EngineCalls(stage, self._journal, worker, app.backoff, self._stopping, self._telemetry)

    @property
    def stage(self) -> Stage[Any, Any]:
        """What it runs."""
        return self._calls.stage

    @property
    @override
    def _call_seconds(self) -> float | None:
        return self._calls.seconds

    @override
    def _read(self, record: Record) -> Work[Any] | Failure | Deleted | None:
        return self.stage.read(record, max_document_chars=self._settings.method.max_document_chars)

    @override
    async def take_over(self) -> None:
        self._telemetry.assigned()
        await asyncio.to_thread(self._journal.take_over)

    @override
    async def _let_go(self) -> None:
        if not self._crashed and not self._tasks:
            self._journal.close()

    @override
    async def _work(self, taken: Sequence[tuple[Received, Ticket]]) -> None:
        began = self._clock_ms()
        read = [received.read or self._read(received.record) for received, _ in taken]
        works = [item for item in read if isinstance(item, Work)]
        results = iter(await self._asked(self._calls.results, works) if works else ())
        items = [_Worked(item, next(results)) if isinstance(item, Work) else item for item in read if item is not None]
        answers = []
        for group in self._journal.groups([item.record for item in items]):
            answers += await self._answer([items[index] for index in group])
        for _, ticket in taken:
            self.app.positions.finish(ticket)
        for answer in answers:
            self._journal.settled(answer.record, given_up=answer.error is not None)
        self.documents += len(answers)
        self._telemetry.answered(answers, began_ms=began)
        for answer in answers:
            if answer.error is not None:
                self.failures += 1
                trace = parse_traceparent(answer.messages[-1].headers)
                log_failure(self.stage.name, answer.record, answer.document, trace, answer.error)
        log.debug("%s answered", self.stage.name, extra={"stage": self.stage.name, "documents": len(answers)})

    async def _answer(self, items: Sequence[_Worked | Failure | Deleted]) -> list[StageAnswer]:
        """Write the answers down and deliver them. An answer that cannot be delivered fails its own document."""
        with self._journal.answering([item.record for item in items]):
            now, random = self._clock_ms(), self._random
            answers = []
            for item in items:
                if isinstance(item, _Worked):
                    answers.append(self.stage.answer(item.work, item.result, now_ms=now, random=random))
                elif isinstance(item, Failure):
                    answers.append(self.stage.give_up(item, now_ms=now, random=random))
                else:
                    answers.append(self.stage.forward(item, now_ms=now, random=random))
            answers = self._delivery.fitting(answers)
        self._delivery.check(answers)
        return await self._delivery.deliver(answers)

    def _smaller(self, answer: StageAnswer, refused: RefusedError) -> Iterator[StageAnswer]:
        error = answer.error or refused.of_the_document
        return self.stage.smaller(answer.record, error, now_ms=self._clock_ms(), random=self._random)
