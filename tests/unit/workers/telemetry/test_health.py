"""Probes: they go by progress, and say in words what is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from workers.telemetry.health import Health, StageHealth, observe_stages
from workers.telemetry.metrics import Metrics
from workers.telemetry.web import HealthServer

WELL = StageHealth("extract", ready=True, in_flight=3, lag=10, documents=7, failures=1)


def health(*stages: StageHealth) -> Health:
    return Health(lambda: stages, stall_seconds=900, batch_deadline_seconds=600)


def verdicts(*stages: StageHealth) -> tuple[bool, bool, bool]:
    """Live, ready, and both."""
    judge = health(*stages)
    return judge.live()[0], judge.ready()[0], judge.well()[0]


def problems(details: Any, stage: str = "extract") -> list[str]:
    found: list[str] = details["stages"][stage]["problems"]
    return found


def test_a_worker_that_gets_on_is_live_and_ready() -> None:
    assert verdicts(WELL) == (True, True, True)
    assert health(WELL).well()[1] == {
        "status": "ok",
        "stages": {
            "extract": {
                "ready": True,
                "stopping": False,
                "stuck_seconds": 0.0,
                "batch_seconds": None,
                "in_flight": 3,
                "lag": 10,
                "documents": 7,
                "failures": 1,
                "stalled": False,
                "problems": [],
            }
        },
    }


@pytest.mark.parametrize("stages", [(), (StageHealth("extract", ready=False),)], ids=["no stage yet", "loading"])
def test_a_worker_that_starts_is_live_but_not_ready(stages: tuple[StageHealth, ...]) -> None:
    assert verdicts(*stages) == (True, False, False)


def test_what_a_start_waits_for_is_said() -> None:
    (problem,) = problems(health(StageHealth("extract", ready=False)).ready()[1])
    assert "no partitions yet" in problem


def test_no_progress_though_there_is_work_is_no_life() -> None:
    stuck = StageHealth("extract", ready=True, stuck_seconds=901)
    assert verdicts(stuck) == (False, True, False)
    assert problems(health(stuck).live()[1]) == [
        "a partition has had messages for 901 s and has not got on (worker.stall_seconds is 900)"
    ]


def test_slow_is_not_stuck() -> None:
    assert verdicts(StageHealth("extract", ready=True, stuck_seconds=900, batch_seconds=600)) == (True, True, True)


def test_an_engine_past_its_deadline_is_no_life() -> None:
    hanging = StageHealth("extract", ready=True, batch_seconds=601)
    assert verdicts(hanging) == (False, True, False)
    assert problems(health(hanging).live()[1]) == [
        "a batch has been at the engine for 601 s (worker.batch_deadline_seconds is 600)"
    ]


def test_without_a_deadline_an_engine_may_take_its_time() -> None:
    hanging = StageHealth("extract", ready=True, batch_seconds=1e6)
    assert Health(lambda: [hanging], stall_seconds=900).live()[0]


def test_a_worker_that_drains_is_live_and_not_ready() -> None:
    draining = StageHealth("extract", ready=True, stopping=True, stuck_seconds=5_000)
    assert verdicts(draining) == (True, False, False)
    assert "stopping" in problems(health(draining).ready()[1])[0]


def test_one_stage_speaks_for_the_process_and_is_named() -> None:
    stuck = StageHealth("classify", ready=True, stuck_seconds=901)
    well, details = health(WELL, stuck).live()
    assert not well
    assert details["status"] == "unwell"
    assert problems(details, "extract") == []
    assert problems(details, "classify")


async def get(server: HealthServer, path: str) -> tuple[int, bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head, body


async def test_probes_follow_the_stages_as_they_change() -> None:
    now = [StageHealth("extract", ready=False)]
    server = HealthServer("127.0.0.1", 0, Health(lambda: now, stall_seconds=900))
    await server.start()
    try:
        seen = []
        for stage in (now[0], WELL, StageHealth("extract", ready=True, stuck_seconds=901)):
            now[:] = [stage]
            seen.append([(await get(server, path))[0] for path in ("/livez", "/readyz", "/healthz")])
        assert seen == [[200, 503, 503], [200, 200, 200], [503, 200, 503]]
        body = (await get(server, "/livez"))[2]
        assert orjson.loads(body)["status"] == "unwell"
        assert (await get(server, "/metrics"))[0] == 404
    finally:
        await server.stop()


async def test_metrics_show_what_the_probes_see() -> None:
    metrics = Metrics(version="1", stages=["extract"])
    stages = [StageHealth("extract", ready=True, stuck_seconds=4.5, batch_seconds=2.0, in_flight=3)]
    observe_stages(metrics, lambda: stages)
    judge = Health(lambda: stages, stall_seconds=900)
    server = HealthServer("127.0.0.1", 0, judge, exposition=metrics.exposition)
    await server.start()
    try:
        status, head, body = await get(server, "/metrics")
        stages[0] = StageHealth("extract", ready=True, stopping=True)
        later = (await get(server, "/metrics"))[2].decode()
    finally:
        await server.stop()
    assert status == 200
    assert b"Content-Type: text/plain; version=0.0.4" in head
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.labels == {"stage": "extract"}
    }
    assert found["el4ner_stage_ready"] == 1
    assert found["el4ner_stage_stuck_seconds"] == 4.5
    assert found["el4ner_batch_age_seconds"] == 2.0
    assert found["el4ner_messages_in_flight"] == 3
    assert 'el4ner_stage_ready{stage="extract"} 0.0' in later
    assert 'el4ner_batch_age_seconds{stage="extract"} 0.0' in later
