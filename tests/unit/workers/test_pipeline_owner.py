"""The pipeline of a process: pools are read when they are needed, and a scrape shows which are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from el4ner import loader
from el4ner.repeats import RepeatCounts
from tests.unit.workers.telemetry.test_metrics import samples, value
from workers.config import load_stream_settings
from workers.pipeline_owner import owned_pipeline
from workers.telemetry.metrics import Metrics


def test_a_worker_does_not_wait_for_pools_and_shows_which_are_read_and_what_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repeats = {"extract": RepeatCounts(3, 2), "classify": RepeatCounts(0, 1), "validate": RepeatCounts()}
    pipeline = SimpleNamespace(
        mixes={}, pools={"p": None, "q": None}, unread_pools=["q"], repeats=repeats, close=lambda: None
    )
    asked_for: dict[str, Any] = {}

    def load(*_: Any, **options: Any) -> Any:
        asked_for.update(options)
        return pipeline

    monkeypatch.setattr(loader, "load_pipeline", load)
    metrics = Metrics(version="1")

    def ready() -> dict[str, float]:
        shown = samples(metrics).items()
        return {dict(labels)["pool"]: value for (name, labels), value in shown if name == "el4ner_pool_ready"}

    async def run() -> None:
        with owned_pipeline(load_stream_settings(environ={}), ["extract", "classify"], close_seconds=5) as owned:
            assert owned is not None
            owned.observe(metrics)
            assert await owned.load(asyncio.Event())
            assert ready() == {"p": 1, "q": 0}
            pipeline.unread_pools.clear()
            assert ready() == {"p": 1, "q": 1}
            for stage, hits, misses in (("extract", 3, 2), ("classify", 0, 1), ("validate", None, None)):
                assert value(metrics, "el4ner_repeats_total", stage=stage, outcome="hit") == hits
                assert value(metrics, "el4ner_repeats_total", stage=stage, outcome="miss") == misses

    asyncio.run(run())
    assert asked_for["at_first_use"] is True
