"""A batch of texts on the pipeline's thread: what fails costs only itself, and is measured.

Texts whose request wants what is configured go through all stages in one call. The others, and those that fail, are
asked stage by stage: the entities are made by each text's own options then, and it is known which stage gave up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from el4ner.assemble import assemble
from el4ner.config import MethodSettings
from el4ner.errors import DocumentError, El4nerError, EngineError
from el4ner.participation import STAGES, StageName
from el4ner.pipeline import Pipeline
from el4ner.serialize import manifest_to_json
from el4ner.types import DocumentEntities, DocumentTypes, TaggedDocument
from workers.backoff import Backoff
from workers.config import WorkerSettings
from workers.http.bugs import logged_of
from workers.one_hop.tagging import TaggingTelemetry
from workers.serve.tag_answers import Tagged
from workers.serve.tag_requests import TagOptions, TextToTag
from workers.stages.isolation import Isolation

__all__ = ["SERVE", "PipelineCalls"]

log = logging.getLogger(__name__)

SERVE: Final = "serve"
"""The service's name where metrics and probes have a stage's."""
_AS_CONFIGURED: Final = TagOptions()
_MOST_RETRY_SECONDS: Final = 30.0

T = TypeVar("T")
R = TypeVar("R")


class PipelineCalls:
    """The calls of one service; :attr:`seconds` may be asked for on any thread. ``stopping`` is set when nothing is to
    be tried again."""

    def __init__(
        self, method: MethodSettings, worker: WorkerSettings, telemetry: TaggingTelemetry, stopping: threading.Event
    ) -> None:
        self._method = method
        self._telemetry = telemetry
        backoff = Backoff(worker.retry_seconds, _MOST_RETRY_SECONDS)
        self._isolation = Isolation(worker.retries, backoff, stopping.wait, self._on_engine_error)
        self._called_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """For how long the engine has worked on the current part of a call; None: it is idle."""
        called = self._called_at
        return None if called is None else time.monotonic() - called

    def results(self, pipeline: Pipeline, texts: Sequence[TextToTag]) -> list[Tagged]:
        """In the order of ``texts``.

        Raises:
            EngineError: an error that may pass did not; no text is to blame for it.
        """
        pipeline.report_progress(self._on_progress)
        began = time.monotonic()
        plain = [number for number, text in enumerate(texts) if text.options == _AS_CONFIGURED]
        documents = [texts[number].document for number in plain]
        together = self._isolation.run(self._watched(pipeline.tag), documents)
        self._telemetry.tokens({str(stage): usage for stage, usage in pipeline.tagging_usage.items()})
        manifests = _Manifests(pipeline)
        results = {
            number: Tagged(result.value, manifests.of(result.value.pool, STAGES))
            for number, result in zip(plain, together, strict=True)
            if isinstance(result.value, TaggedDocument)
        }
        apart = [number for number in range(len(texts)) if number not in results]
        by_stage = self._by_stage(pipeline, [texts[number] for number in apart], manifests)
        results.update(zip(apart, by_stage, strict=True))
        self._telemetry.metrics.stage_batch(SERVE, len(texts), time.monotonic() - began)
        return [results[number] for number in range(len(texts))]

    def _by_stage(self, pipeline: Pipeline, texts: Sequence[TextToTag], manifests: _Manifests) -> list[Tagged]:
        given: dict[int, Any] = {number: text.document for number, text in enumerate(texts)}
        results: dict[int, Tagged] = {}
        steps: Mapping[StageName, Callable[[Sequence[Any]], list[Any]]] = {
            "extract": pipeline.extract,
            "classify": pipeline.classify,
            "validate": pipeline.validate,
        }
        for name, step in steps.items():
            numbers = [number for number in given if number not in results]
            answered = self._isolation.run(self._watched(step), [given[number] for number in numbers])
            for number, result in zip(numbers, answered, strict=True):
                if isinstance(result.value, DocumentError):
                    results[number] = self._failed(texts[number], name, result.value, given[number], manifests)
                    continue
                usage = result.value.usage
                self._telemetry.metrics.tokens(
                    name, prompt=usage.prompt_tokens, cached=usage.cached_tokens, new=usage.new_tokens
                )
                given[number] = result.value
        for number, text in enumerate(texts):
            if number not in results:
                tagged = self._assembled(given[number], text.options)
                results[number] = Tagged(tagged, manifests.of(tagged.pool, STAGES))
        return [results[number] for number in range(len(texts))]

    def _failed(
        self, text: TextToTag, stage: StageName, error: DocumentError, given: Any, manifests: _Manifests
    ) -> Tagged:
        """As the join on the stream has it: without validation, the types stand."""
        by_engine = isinstance(error.__cause__, EngineError)
        if by_engine or stage != "extract":
            # Not its message: an engine's may quote the text.
            log.warning("a text was given up", extra={"stage": stage, "code": error.code})
        tagged = self._assembled(given, text.options) if isinstance(given, DocumentTypes) else None
        before = STAGES[: STAGES.index(stage)]
        answered = manifests.of(given.manifest.pool, before) if before else {}
        return Tagged(tagged, answered, error, stage, by_engine)

    def _assembled(self, result: DocumentEntities | DocumentTypes, options: TagOptions) -> TaggedDocument:
        method = self._method
        return assemble(
            result,
            overlaps=options.overlaps or method.overlaps,
            validation=method.validation_kind,
            min_confidence=method.min_confidence if options.min_confidence is None else options.min_confidence,
        )

    def _watched(self, call: Callable[[Sequence[T]], list[R]]) -> Callable[[Sequence[T]], list[R]]:
        def watched(items: Sequence[T]) -> list[R]:
            self._called_at = called_at = time.monotonic()
            try:
                return call(items)
            except El4nerError:
                raise
            except Exception as bug:
                # On the stream it would end the worker. Here anybody may send the text again and again, and no journal
                # knows it: it is found like one that an engine fails on, and the others are answered.
                log.exception("a bug", exc_info=False, extra=logged_of(bug))
                raise EngineError(f"a bug ({type(bug).__name__}); the service's log has it", code="bug") from None
            finally:
                self._telemetry.called(time.monotonic() - called_at)
                self._called_at = None

        return watched

    def _on_progress(self) -> None:
        """The engine has finished a part of a call."""
        if self._called_at is not None:
            self._called_at = time.monotonic()

    def _on_engine_error(self, error: EngineError, documents: int) -> None:
        self._telemetry.retried(error.code)
        log.warning("an engine failed", extra={"code": error.code, "documents": documents})


class _Manifests:
    """Who answers, as JSON; each is made once a batch."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._made: dict[tuple[StageName, str], dict[str, Any]] = {}

    def of(self, pool: str, stages: Sequence[StageName]) -> dict[StageName, dict[str, Any]]:
        """By stage."""
        for stage in stages:
            if (stage, pool) not in self._made:
                self._made[stage, pool] = manifest_to_json(self._pipeline.manifest(stage, pool))
        return {stage: self._made[stage, pool] for stage in stages}
