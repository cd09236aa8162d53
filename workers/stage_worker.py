"""The streaming shell around a stage: events in batches, the engine on its own thread, acknowledgement after delivery.

What it keeps: a message is finished (may be committed) only when every message that it leads to is delivered. A
delivery that fails, or an exception that is no :class:`~el4ner.errors.EngineError`, finishes nothing and ends the
worker; the messages come again. Faust's ``take`` acknowledges in a ``finally``, so :meth:`run` uses ``noack_take``; and
since Faust acknowledges elsewhere too, its acknowledgements do not count at all (:mod:`workers.offsets`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from el4ner.errors import DocumentError
from workers.app import StageApp
from workers.headers import RandomBytes, parse_traceparent
from workers.messages import Record
from workers.offsets import Ticket
from workers.stage import Answer, Failure, Result, Stage, Work, run_isolated

__all__ = ["Owner", "StageWorker"]

log = logging.getLogger(__name__)

Call = Callable[[Any, Sequence[Any]], list[Any]]
"""``(pipeline, items)`` → results: one of the pipeline's stages."""


class Owner(Protocol):
    """The thread that owns the pipeline: :class:`el4ner.engines.owner.OwnedEngine`."""

    def submit_within(self, seconds: float | None, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(pipeline, *args)`` on the thread, after what was submitted before."""


class StageWorker:
    """One stage's agent. ``call`` runs on ``owner``'s thread only."""

    def __init__(
        self,
        app: StageApp,
        stage: Stage[Any, Any],
        call: Call,
        owner: Owner,
        *,
        clock_ms: Callable[[], int],
        random: RandomBytes,
    ) -> None:
        self.app = app
        self.stage = stage
        self.documents = 0
        self.failures = 0
        self._call = call
        self._owner = owner
        self._clock_ms = clock_ms
        self._random = random
        self._settings = app.settings
        self._slots = asyncio.Semaphore(app.settings.worker.batches_in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        # Concurrency above 1 can commit over a message in flight (#606); batches are the concurrency here.
        app.agent(app.raw_topic(stage.input), name=f"el4ner-{stage.name}", concurrency=1)(self.run)

    async def run(self, stream: Any) -> None:
        """The agent."""
        worker = self._settings.worker
        try:
            async for events in stream.noack_take(worker.batch_documents, within=worker.batch_seconds):
                await self._slots.acquire()
                taken = [one for one in map(self.app.take, events) if one is not None]
                task = asyncio.create_task(self._work(taken))
                self._tasks.add(task)
                task.add_done_callback(self._done)
        except Exception as error:
            # Faust would restart the agent and leave the events that it held behind.
            self.app.fail(error)
            raise

    async def drain(self) -> None:
        """Wait, within ``worker.shutdown_seconds``, until what was begun is finished."""
        end = asyncio.get_running_loop().time() + self._settings.worker.shutdown_seconds
        while self._tasks and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(error)

    async def _work(self, taken: Sequence[tuple[Record, Ticket]]) -> None:
        limit = self._settings.method.max_document_chars
        read = [(self.stage.read(record, max_document_chars=limit), ticket) for record, ticket in taken]
        works = [(one, ticket) for one, ticket in read if isinstance(one, Work)]
        results: list[Result[Any]] = []
        if works:
            items = [work.item for work, _ in works]
            # There is a place: no more batches are in flight than the queue takes, and the loop must not wait for one.
            results = await asyncio.wrap_future(self._owner.submit_within(0, _run, self._call, items))
        now = self._clock_ms()
        answers = [
            self.stage.answer(work, result, now_ms=now, random=self._random)
            for (work, _), result in zip(works, results, strict=True)
        ]
        answers += [
            self.stage.give_up(one, now_ms=now, random=self._random) for one, _ in read if isinstance(one, Failure)
        ]
        await self.app.deliver([message for answer in answers for message in answer.messages])
        for _, ticket in read:
            self.app.positions.finish(ticket)
        self.documents += len(answers)
        for answer in answers:
            if answer.error is not None:
                self.failures += 1
                _log_failure(self.stage.name, answer, answer.error)
        log.debug("%s answered", self.stage.name, extra={"stage": self.stage.name, "documents": len(answers)})


def _run(pipeline: Any, call: Call, items: Sequence[Any]) -> list[Result[Any]]:
    return run_isolated(partial(call, pipeline), items)


def _log_failure(stage: str, answer: Answer, error: DocumentError) -> None:
    trace = parse_traceparent(answer.messages[-1].headers)
    log.warning(
        "%s gave up on a document: %s",
        stage,
        error,
        extra={
            "stage": stage,
            "code": error.code,
            "document_id": answer.document,
            "trace_id": None if trace is None else trace.trace_id,
            "source": f"{answer.record.source}-{answer.record.partition}-{answer.record.offset}",
        },
    )
