"""documents → span-candidates: the pipeline's first two stages, retrieval and extraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from el4ner.errors import DocumentError
from el4ner.types import Document, DocumentCandidates
from workers.ensemble.members import part_of
from workers.kafka.stage_app import StageApp
from workers.messages.headers import RandomBytes
from workers.stages.stage import EXTRACT
from workers.stages.stage_worker import Owner, StageWorker
from workers.telemetry.recorder import Telemetry

if TYPE_CHECKING:
    # At run time it takes torch along, and belongs to the owner's thread.
    from el4ner.pipeline import Pipeline

__all__ = ["build"]


def build(
    app: StageApp, owner: Owner, *, clock_ms: Callable[[], int], random: RandomBytes, telemetry: Telemetry
) -> StageWorker:
    """The worker of the extract stage, or of some members' part of it: what is proposed there is the same."""
    stage = part_of(EXTRACT, app.settings)
    return StageWorker(app, stage, _call, owner, clock_ms=clock_ms, random=random, telemetry=telemetry)


def _call(pipeline: Pipeline, batch: Sequence[Document]) -> list[DocumentCandidates | DocumentError]:
    return pipeline.extract(batch)
