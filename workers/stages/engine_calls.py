"""The calls of the pipeline for one stage: isolated, noted in the crash journal, and measured.

All of it happens on the thread that owns the pipeline, but for what probes ask (:attr:`EngineCalls.seconds`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from el4ner.errors import DocumentError, El4nerError, EngineError
from workers.backoff import Backoff
from workers.config import WorkerSettings
from workers.stages.crash_journal import CrashJournal
from workers.stages.isolation import Isolation, Result
from workers.stages.stage import Stage, Work
from workers.stages.stage_telemetry import StageTelemetry

__all__ = ["EngineCalls", "EngineHungError", "Owner"]

log = logging.getLogger(__name__)


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


class EngineCalls:
    """One stage's calls.

    ``stopping`` is set when the worker is to stop: nothing is tried again then.
    """

    def __init__(
        self,
        stage: Stage[Any, Any],
        journal: CrashJournal,
        settings: WorkerSettings,
        backoff: Backoff,
        stopping: threading.Event,
        telemetry: StageTelemetry,
    ) -> None:
        self.stage = stage
        self.journal = journal
        self._max_crashes = settings.max_crashes
        self._telemetry = telemetry
        self._isolation = Isolation(settings.retries, backoff, stopping.wait, self._on_engine_error)
        self._called_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """For how long the engine has worked on the current part of a call; None: it is idle."""
        called = self._called_at
        return None if called is None else time.monotonic() - called

    def results(self, pipeline: Any, works: Sequence[Work[Any]]) -> list[Result[Any]]:
        """In the order of ``works``. Suspects are worked on alone, after the others; a document over which too many
        workers died is not worked on."""
        if not self.journal.has_suspects:
            return self._run(pipeline, works) if works else []
        results: list[Any] = [self._given_up(work) for work in works]
        asked = [index for index, given_up in enumerate(results) if given_up is None]
        for group in self.journal.groups([works[index].record for index in asked]):
            indices = [asked[place] for place in group]
            together = self._run(pipeline, [works[index] for index in indices])
            for index, result in zip(indices, together, strict=True):
                results[index] = result
        return results

    def _given_up(self, work: Work[Any]) -> Result[Any] | None:
        deaths = self.journal.deaths(work.record)
        if deaths < self._max_crashes:
            return None
        error = DocumentError(
            f"{deaths} workers died while they worked on this document alone, or told its answer, or hung",
            code="worker-crash",
        )
        return Result(error, deaths)

    def _run(self, pipeline: Any, works: Sequence[Work[Any]]) -> list[Result[Any]]:
        def call(part: Sequence[Work[Any]]) -> list[Any]:
            self._called_at = called_at = time.monotonic()
            try:
                # Nothing is noted yet: what ends this process while it reads a pool is no document's fault.
                read_pools = getattr(pipeline, "read_pools", None)
                if read_pools is not None:
                    read_pools([work.document for work in part])
                self._on_progress()
                return self._noted_call(pipeline, part)
            finally:
                self._telemetry.called(time.monotonic() - called_at)
                self._called_at = None

        report_progress = getattr(pipeline, "report_progress", None)
        if report_progress is not None:
            report_progress(self._on_progress)
        began = time.monotonic()
        results = self._isolation.run(call, works)
        self._telemetry.batch(results, time.monotonic() - began)
        return results

    def _noted_call(self, pipeline: Any, part: Sequence[Work[Any]]) -> list[Any]:
        """The call itself, with its documents in the journal while it lasts."""
        self.journal.begin([work.record for work in part])
        try:
            values: list[Any] = self.stage.call(pipeline, [work.item for work in part])
        except EngineError:
            self.journal.end()
            raise
        except Exception:
            # A bug: this process ends, and its successor has to know, whatever other batches do until then.
            self.journal.blame([work.record for work in part])
            raise
        self.journal.end()
        return values

    def _on_progress(self) -> None:
        """The engine has finished a part of a call."""
        if self._called_at is not None:
            self._called_at = time.monotonic()

    def _on_engine_error(self, error: EngineError, documents: int) -> None:
        self._telemetry.retried(error.code)
        extra = {"stage": self.stage.name, "code": error.code, "documents": documents}
        log.warning("an engine failed: %s", error, extra=extra)
