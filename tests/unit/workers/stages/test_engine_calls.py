"""What a process leaves behind that dies while it reads a pool for the first document that needs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from el4ner.types import Document
from tests.support.answers import RESULTS, TIME, random, raw
from workers.backoff import Backoff
from workers.config import load_stream_settings
from workers.stages.crash_journal import CrashJournal
from workers.stages.engine_calls import EngineCalls
from workers.stages.stage import Work
from workers.stages.stage_telemetry import StageTelemetry
from workers.stages.table import EXTRACT
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry
from workers.telemetry.tracing import NoSpans

DOCUMENT = Document("a", "Ada flew to Berlin", "p")
WORK = Work(raw(b"{}", offset=1), DOCUMENT, DOCUMENT)


class KilledError(BaseException):
    """The process is gone."""


class LazyPipeline:
    """Its process is killed while it reads a pool, or while it answers."""

    def __init__(self, *, killed_by: str) -> None:
        self._killed_by = killed_by
        self._is_read = False

    def read_pools(self, documents: Sequence[Document]) -> None:
        assert list(documents) == [DOCUMENT]
        if not self._is_read and self._killed_by == "pool":
            raise KilledError
        self._is_read = True

    def answer(self, documents: Sequence[Document]) -> list[Any]:
        self.read_pools(documents)
        if self._killed_by == "document":
            raise KilledError
        return [RESULTS["extract"](document) for document in documents]


@pytest.mark.parametrize(("killed_by", "deaths"), [("pool", 0), ("document", 1)])
def test_a_document_is_not_to_blame_for_the_reading_of_its_pool(tmp_path: Path, killed_by: str, deaths: int) -> None:
    settings = load_stream_settings(environ={}, overrides={"worker": {"data_dir": str(tmp_path)}})
    telemetry = Telemetry(settings, Metrics(version="1"), NoSpans())
    journal = CrashJournal(tmp_path, "extract")
    calls = EngineCalls(
        replace(EXTRACT, call=lambda pipeline, documents: pipeline.answer(documents)),
        journal,
        settings.worker,
        Backoff(0.0, 0.0),
        threading.Event(),
        StageTelemetry(telemetry, "extract", clock_ms=lambda: TIME, random=random, group="extract"),
    )
    with pytest.raises(KilledError):
        calls.results(LazyPipeline(killed_by=killed_by), [WORK])
    assert calls.seconds is None
    file, journal._file = journal._file, None
    assert file is not None
    os.close(file)
    successor = CrashJournal(tmp_path, "extract")
    successor.take_over()
    assert successor.deaths(WORK.record) == deaths
