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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol

from el4ner.errors import DocumentError, El4nerError, EngineError
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import Ticket
from workers.kafka.stage_app import StageApp
from workers.messages.envelope import Record, coordinates
from workers.messages.headers import RandomBytes, parse_traceparent
from workers.stages.answer_delivery import AnswerDelivery
from workers.stages.batching import Batcher
from workers.stages.crash_journal import CrashJournal
from workers.stages.isolation import Isolation, Result
from workers.stages.stage import Deleted, Failure, Stage, StageAnswer, Work
from workers.stages.stage_telemetry import StageTelemetry
from workers.telemetry.recorder import Telemetry

__all__ = ["EngineHungError", "Owner", "StageWorker"]

log = logging.getLogger(__name__)

_MOST_AT_ENGINE: Final = 2
"""One batch at work and one that waits for the engine: a third one would only wait longer."""
_WATCH_SECONDS: Final = 0.5


class EngineHungError(El4nerError):
    """An engine did not answer within ``worker.batch_deadline_seconds``: a thread cannot be ended, a process can."""

    code = "engine-hung"


class Owner(Protocol):
    """The thread that owns the pipeline: :class:`el4ner.engines.owner.OwnedEngine`."""

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""

    def submit_within(self, seconds: float | None, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(pipeline, *args)`` on the thread, after what was submitted before."""


@dataclass(frozen=True, slots=True)
class _Worked:
    """Work with the engine's result."""

    work: Work[Any]
    result: Result[Any]

    @property
    def record(self) -> Record:
        return self.work.record


class StageWorker:
    """One stage's agent. The pipeline is called on ``owner``'s thread only."""

    def __init__(
        self,
        app: StageApp,
        stage: Stage[Any, Any],
        owner: Owner,
        *,
        clock_ms: Callable[[], int],
        random: RandomBytes,
        telemetry: Telemetry,
    ) -> None:
        worker = app.settings.worker
        self.app = app
        self.stage = stage
        self.documents = 0
        self.failures = 0
        self._owner = owner
        self._clock_ms = clock_ms
        self._random = random
        self._telemetry = StageTelemetry(telemetry, stage.name, clock_ms=clock_ms, random=random, group=app.group)
        self._settings = app.settings
        self._slots = asyncio.Semaphore(worker.batches_in_flight)
        self._at_engine = 0
        self._engine_free = asyncio.Event()
        self._called_at: float | None = None
        self._stopping = threading.Event()
        self._crashed = False
        self._tasks: set[asyncio.Task[None]] = set()
        # Messages with the generation that they were read in. They get a ticket when the batch is formed: until then
        # the partition may be taken away.
        self._batcher: Batcher[tuple[Record, int]] = Batcher(
            worker.batch_documents,
            worker.batch_seconds,
            lambda: self._at_engine == 0,
            weigh=lambda item: len(item[0].value or b""),
            most=worker.batch_kb << 10,
        )
        self._journal = CrashJournal(worker.data_dir, stage.journal_name)
        self._delivery = AnswerDelivery(app, self._journal, self._telemetry, self._smaller)
        self._isolation = Isolation(worker.retries, app.backoff, self._stopping.wait, self._on_engine_error)
        # Concurrency above 1 can commit over a message in flight (#606); batches are the concurrency here.
        app.agent(app.raw_topic(stage.input), name=f"el4ner-{stage.name}", concurrency=1)(self.run)
        app.task(self._form_batches)
        app.task(self._watch)
        app.prepare = self._on_assigned

    # --- what health and metrics ask ---

    @property
    def batch_seconds(self) -> float | None:
        """For how long the engine has worked on the current part of a call; None: it is idle."""
        called = self._called_at
        return None if called is None else time.monotonic() - called

    # --- from messages to batches ---

    async def run(self, stream: Any) -> None:
        """Take in what the topic brings."""
        try:
            async for event in stream.noack().events():
                generation = event.message.generation_id
                await self._batcher.put((record, generation) for record in self.app.records(event.message.value))
        except Exception as error:
            # Faust would restart the agent and leave the events that it held behind.
            self.app.fail(error)
            raise

    async def _form_batches(self) -> None:
        while not self.app.should_stop:
            await self._slots.acquire()
            while self._at_engine >= _MOST_AT_ENGINE:
                self._engine_free.clear()
                await self._engine_free.wait()
            batch = []
            for record, generation in await self._batcher.take():
                ticket = self.app.ticket(record, generation)
                if ticket is not None:
                    batch.append((record, ticket))
            task = asyncio.create_task(self._work(batch))
            self._tasks.add(task)
            task.add_done_callback(self._done)
            # So that the engine counts as busy before the next batch is formed.
            await asyncio.sleep(0)

    async def _on_assigned(self) -> None:
        self._telemetry.assigned()
        await asyncio.to_thread(self._journal.take_over)

    async def drain(self) -> None:
        """Wait, within ``worker.shutdown_seconds``, until what was begun is finished."""
        end = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        while self._tasks and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)

    async def release(self) -> None:
        """Stop for good: nothing is tried again."""
        self._stopping.set()
        if not self._crashed and not self._tasks:
            self._journal.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed = True
            self.app.fail(error)

    # --- one batch ---

    async def _work(self, taken: Sequence[tuple[Record, Ticket]]) -> None:
        began = self._clock_ms()
        limit = self._settings.method.max_document_chars
        read = [self.stage.read(record, max_document_chars=limit) for record, _ in taken]
        results = iter(await self._results([item for item in read if isinstance(item, Work)]))
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
                _log_failure(self.stage.name, answer, answer.error)
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

    def _given_up(self, work: Work[Any]) -> Result[Any] | None:
        """The error of a document over which too many workers died."""
        deaths = self._journal.deaths(work.record)
        if deaths < self._settings.worker.max_crashes:
            return None
        error = DocumentError(
            f"{deaths} workers died while they worked on this document alone, or told its answer, or hung",
            code="worker-crash",
        )
        return Result(error, deaths)

    async def _results(self, works: Sequence[Work[Any]]) -> list[Result[Any]]:
        """The engine's results, in the order of ``works``. Suspects are worked on alone, after the others."""
        results: list[Any] = [self._given_up(work) for work in works]
        asked = [index for index, given_up in enumerate(results) if given_up is None]
        if not asked:
            return results
        self._at_engine += 1
        try:
            for group in self._journal.groups([works[index].record for index in asked]):
                indices = [asked[place] for place in group]
                # There is room: no more batches are at the engine than its queue takes.
                call = self._owner.submit_within(0, self._run, [works[index] for index in indices])
                for index, result in zip(indices, await asyncio.wrap_future(call), strict=True):
                    results[index] = result
        finally:
            self._at_engine -= 1
            self._engine_free.set()
            self._batcher.wake()
        return results

    def _run(self, pipeline: Any, works: Sequence[Work[Any]]) -> list[Result[Any]]:
        """Ask the pipeline. On the engine's thread."""

        def call(part: Sequence[Work[Any]]) -> list[Any]:
            self._journal.begin([work.record for work in part])
            self._called_at = called_at = time.monotonic()
            try:
                values = self.stage.call(pipeline, [work.item for work in part])
            except EngineError:
                self._journal.end()
                raise
            except Exception:
                # A bug: this process ends, and its successor has to know, whatever other batches do until then.
                self._journal.blame([work.record for work in part])
                raise
            finally:
                self._telemetry.called(time.monotonic() - called_at)
                self._called_at = None
            self._journal.end()
            return values

        report_progress = getattr(pipeline, "report_progress", None)
        if report_progress is not None:
            report_progress(self._on_progress)
        began = time.monotonic()
        results = self._isolation.run(call, works)
        self._telemetry.batch(results, time.monotonic() - began)
        return results

    def _on_progress(self) -> None:
        """The engine has finished a part of a call. On the engine's thread."""
        if self._called_at is not None:
            self._called_at = time.monotonic()

    def _on_engine_error(self, error: EngineError, documents: int) -> None:
        self._telemetry.retried(error.code)
        extra = {"stage": self.stage.name, "code": error.code, "documents": documents}
        log.warning("an engine failed: %s", error, extra=extra)

    async def _watch(self) -> None:
        """End the worker when an engine hangs."""
        deadline = self._settings.worker.batch_deadline_seconds
        while not self.app.should_stop:
            await asyncio.sleep(_WATCH_SECONDS)
            seconds = self.batch_seconds
            if seconds is not None and seconds > deadline:
                self.app.fail(EngineHungError(f"{self.stage.name}: an engine has not answered for {seconds:.0f} s"))
                return


def _log_failure(stage: str, answer: StageAnswer, error: DocumentError) -> None:
    trace = parse_traceparent(answer.messages[-1].headers)
    extra = {
        "stage": stage,
        "code": error.code,
        "document_id": answer.document,
        "trace_id": None if trace is None else trace.trace_id,
        "source": coordinates(answer.record),
    }
    log.warning("%s gave up on a document: %s", stage, error, extra=extra)
