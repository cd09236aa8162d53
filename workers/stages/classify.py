"""span-candidates → typed-entities: the pipeline's third stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from el4ner.errors import DocumentError
from el4ner.types import DocumentAnswers, DocumentCandidates, DocumentTypes
from workers.ensemble.members import part_of
from workers.kafka.stage_app import StageApp
from workers.messages.headers import RandomBytes
from workers.stages.stage import CLASSIFY
from workers.stages.stage_worker import Owner, StageWorker
from workers.telemetry.recorder import Telemetry

if TYPE_CHECKING:
    # At run time it takes torch along, and belongs to the owner's thread.
    from el4ner.pipeline import Pipeline

__all__ = ["build"]


def build(
    app: StageApp, owner: Owner, *, clock_ms: Callable[[], int], random: RandomBytes, telemetry: Telemetry
) -> StageWorker:
    """The worker of the classify stage, or of what some members say to it."""
    stage = part_of(CLASSIFY, app.settings)
    call = _answer if stage.members else _call
    return StageWorker(app, stage, call, owner, clock_ms=clock_ms, random=random, telemetry=telemetry)


def _call(pipeline: Pipeline, batch: Sequence[DocumentCandidates]) -> list[DocumentTypes | DocumentError]:
    return pipeline.classify(batch)


def _answer(pipeline: Pipeline, batch: Sequence[DocumentCandidates]) -> list[DocumentAnswers | DocumentError]:
    return pipeline.answer(batch)
