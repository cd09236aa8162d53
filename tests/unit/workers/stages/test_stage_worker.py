"""What a stage worker does with a batch when its answers cannot be written down or delivered; no Kafka, no engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiokafka.errors import TopicAuthorizationFailedError, UnknownError

from el4ner.serialize import dumps
from tests.support.answers import RESULTS, TIME, random, raw
from workers.backoff import Backoff
from workers.config import load_stream_settings
from workers.kafka.delivery import RefusedError
from workers.kafka.offsets import OffsetTracker, Ticket
from workers.messages.envelope import Outgoing, Record
from workers.stages import engine_calls
from workers.stages.batch_worker import Received
from workers.stages.failure_limit import TooManyFailuresError
from workers.stages.stage_worker import StageWorker
from workers.stages.table import EXTRACT
from workers.telemetry.metrics import Metrics
from workers.telemetry.recorder import Telemetry
from workers.telemetry.tracing import NoSpans
from workers.topics import Topic

Deliver = Callable[[Sequence[Outgoing]], None]


class Owner:
    """Calls at once."""

    waiting = 0

    def submit_within(self, _seconds: float | None, function: Any, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(None, *args))
        return future


class Process:
    """A worker of the extract stage, which dies of what it raises. ``deliver`` raises what delivery raises."""

    def __init__(self, folder: Path, deliver: Deliver, **worker: Any) -> None:
        settings = load_stream_settings(environ={}, overrides={"worker": {"data_dir": str(folder), **worker}})
        self.delivered: list[Outgoing] = []
        self.calls: list[list[str]] = []
        self.positions = OffsetTracker(lambda: 0.0)
        self.positions.open(1)

        async def sent(messages: Sequence[Outgoing], **_: Any) -> None:
            deliver(messages)
            self.delivered += messages

        def call(_: Any, documents: Sequence[Any]) -> list[Any]:
            self.calls.append([document.id for document in documents])
            return [RESULTS["extract"](document) for document in documents]

        app: Any = SimpleNamespace(
            stage="extract",
            settings=settings,
            group="extract",
            backoff=Backoff(0.0, 0.0),
            positions=self.positions,
            refusal=lambda _: None,
            deliver=sent,
            fail=lambda _: None,
            agent=lambda *_, **__: lambda function: function,
            raw_topic=lambda *_: None,
            task=lambda function: function,
        )
        telemetry = Telemetry(settings, Metrics(version="1"), NoSpans())
        self.worker = StageWorker(
            app, replace(EXTRACT, call=call), Owner(), clock_ms=lambda: TIME, random=random, telemetry=telemetry
        )
        self.worker._journal.take_over()

    async def work(self, *records: Record) -> None:
        taken: list[tuple[Received, Ticket]] = []
        for record in records:
            self.positions.read((record.source, record.partition), record.offset, 1)
            ticket = self.positions.take((record.source, record.partition), record.offset, 1)
            assert ticket is not None
            taken.append((Received(record, 1), ticket))
        await self.worker._work(taken)

    def die(self) -> None:
        """The system closes its files."""
        file, self.worker._journal._file = self.worker._journal._file, None
        assert file is not None
        os.close(file)

    def about(self, name: str) -> list[Any]:
        """What was said about a document."""
        return [
            orjson.loads(message.value or b"")
            for message in self.delivered
            if message.topic is Topic.SPAN_CANDIDATES and message.key == name.encode()
        ]


def document(name: str, offset: int) -> Record:
    return raw(dumps({"id": name, "text": f"{name} flew to Berlin"}), key=name.encode(), offset=offset)


BATCH = [document("a", 1), document("poison", 2), document("c", 3)]


def fails(name: str, error: BaseException, topic: Topic | None = Topic.SPAN_CANDIDATES) -> Deliver:
    """Delivery of the result about a document raises; of its failure, and of anything else, it does not."""

    def deliver(messages: Sequence[Outgoing]) -> None:
        for message in messages:
            concerned = message.key == name.encode() and (topic is None or message.topic is topic)
            if concerned and b'"failed"' not in (message.value or b""):
                raise error

    return deliver


@pytest.mark.parametrize("error", [RuntimeError("a bug in the client"), UnknownError()])
async def test_a_document_whose_answer_ends_worker_after_worker_is_given_up(tmp_path: Path, error: Exception) -> None:
    left, delivered = list(BATCH), {}
    for _ in range(3):
        process = Process(tmp_path, fails("poison", error), max_crashes=3)
        with pytest.raises(type(error)):
            await process.work(*left)
        process.die()
        delivered |= {message.key: message for message in process.delivered}
        left = [record for record in left if record.key not in delivered]
    # From the second time on each was delivered by itself, so that what came before it was out.
    assert set(delivered) == {b"a"}
    last = Process(tmp_path, fails("poison", error), max_crashes=3)
    await last.work(*left)
    (given_up,) = last.about("poison")
    assert (given_up["status"], given_up["error"]["code"]) == ("failed", "worker-crash")
    (letter,) = [message for message in last.delivered if message.topic is Topic.DEAD_LETTERS]
    assert letter.value == BATCH[1].value
    assert last.about("c")[0]["status"] == "ok"
    assert last.positions.in_flight == 0


async def test_what_a_process_dies_of_is_told_to_the_next_one_though_it_ends_in_order(tmp_path: Path) -> None:
    process = Process(tmp_path, fails("poison", RuntimeError("a bug in the client")))
    batch = asyncio.create_task(process.work(*BATCH))
    batch.add_done_callback(process.worker._done)
    with pytest.raises(RuntimeError):
        await batch
    await process.worker.release()
    process.die()
    after = Process(tmp_path, lambda _: None)
    assert [after.worker._journal.deaths(record) for record in BATCH] == [1, 1, 1]


async def test_a_result_that_cannot_be_written_down_is_found_out_too(tmp_path: Path) -> None:
    def encode(value: Any) -> Any:
        if value.document.id == "poison":
            raise RecursionError("a bug")
        return EXTRACT.encode(value)

    for _ in range(3):
        process = Process(tmp_path, lambda _: None, max_crashes=3)
        process.worker._calls.stage = replace(process.worker.stage, encode=encode)
        with pytest.raises(RecursionError):
            await process.work(*BATCH[1:])
        process.die()
    last = Process(tmp_path, lambda _: None, max_crashes=3)
    await last.work(*BATCH[1:])
    assert last.about("poison")[0]["error"]["code"] == "worker-crash"
    assert last.about("c")[0]["status"] == "ok"


async def test_nobody_is_blamed_for_what_a_broker_has_against_everybody(tmp_path: Path) -> None:
    refusal = TopicAuthorizationFailedError("span-candidates")
    for _ in range(4):
        process = Process(tmp_path, fails("poison", refusal), max_crashes=2)
        with pytest.raises(TopicAuthorizationFailedError):
            await process.work(*BATCH)
        process.die()
    after = Process(tmp_path, lambda _: None, max_crashes=2)
    await after.work(*BATCH)
    assert [after.about(name)[0]["status"] for name in ("a", "poison", "c")] == ["ok"] * 3


async def test_what_is_refused_is_one_documents_failure_and_the_worker_goes_on(tmp_path: Path) -> None:
    refused = RefusedError("the broker refuses a message: too large", code="output-too-large", by_broker=True)
    process = Process(tmp_path, fails("poison", refused))
    await process.work(*BATCH)
    assert [process.about(name)[0]["status"] for name in ("a", "poison", "c")] == ["ok", "failed", "ok"]
    (letter,) = [message for message in process.delivered if message.topic is Topic.DEAD_LETTERS]
    assert letter.value == BATCH[1].value
    assert process.worker.failures == 1
    assert process.positions.in_flight == 0


async def test_where_everything_is_refused_the_worker_stops(tmp_path: Path) -> None:
    def deliver(messages: Sequence[Outgoing]) -> None:
        if any(b'"ok"' in (message.value or b"") for message in messages):
            raise RefusedError("no", code="undeliverable", by_broker=True)

    process = Process(tmp_path, deliver, max_failure_run=3)
    with pytest.raises(TooManyFailuresError):
        await process.work(*BATCH)
    assert len([1 for message in process.delivered if message.topic is Topic.DEAD_LETTERS]) == 2


async def test_a_long_batch_is_not_taken_for_an_engine_that_hangs_while_slices_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ages = [0.0], []
    monkeypatch.setattr(engine_calls, "time", SimpleNamespace(monotonic=lambda: now[0]))
    process = Process(tmp_path, lambda _: None)
    worker = process.worker

    class Pipeline:
        def report_progress(self, progress: Callable[[], None]) -> None:
            self.progress = progress

    pipeline = Pipeline()

    def call(_: Any, documents: Sequence[Any]) -> list[Any]:
        for _ in range(3):
            now[0] += 500
            ages.append(worker.batch_seconds)
            pipeline.progress()
        return [RESULTS["extract"](document) for document in documents]

    worker._calls.stage = replace(worker.stage, call=call)
    owner: Any = Owner()
    owner.submit_within = lambda _seconds, function, *args: Owner().submit_within(
        None, lambda _none, *rest: function(pipeline, *rest), *args
    )
    worker._owner = owner
    await process.work(*BATCH)
    assert ages == [500.0, 500.0, 500.0]
    assert worker.batch_seconds is None


async def test_a_bug_at_the_engine_is_not_forgotten_when_other_batches_go_on(tmp_path: Path) -> None:
    process = Process(tmp_path, lambda _: None)
    call = process.worker.stage.call

    def with_a_bug(pipeline: Any, documents: Sequence[Any]) -> list[Any]:
        if any(one.id == "poison" for one in documents):
            raise ZeroDivisionError("a bug")
        return call(pipeline, documents)

    process.worker._calls.stage = replace(process.worker.stage, call=with_a_bug)
    with pytest.raises(ZeroDivisionError):
        await process.work(BATCH[1])
    await process.work(BATCH[2])
    process.die()
    after = Process(tmp_path, lambda _: None)
    assert [after.worker._journal.deaths(record) for record in BATCH] == [0, 1, 0]
