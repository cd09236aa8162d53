"""What the stream does when something is wrong: broken documents, crashes, deadlines, wrong topics, Redis away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
import pytest

from el4ner.errors import EngineError
from el4ner.pipeline import Pipeline
from el4ner.serialize import dumps
from tests.integration.stream_harness import Stream, wait_until
from tests.integration.test_stream import assert_exact, documents
from workers import run
from workers.app import StageApp
from workers.headers import find
from workers.join import event_id_of
from workers.outputs import tagged_document
from workers.run import WorkerCrashedError, serve_workers
from workers.topics import Topic, changelog_name

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # kafka-python 3.0 reads its protocol's definitions by a function that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


@contextlib.asynccontextmanager
async def serving(stream: Stream, *stages: str) -> AsyncIterator[asyncio.Task[None]]:
    """Workers in this process, ready, stopped in the end."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve_workers(stream.settings, stages, stop=stop, ready=ready.set))
    started = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([task, started], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        assert ready.is_set()
        yield task
    finally:
        started.cancel()
        stop.set()
        await asyncio.wait([task], timeout=60)
    if not task.cancelled():
        task.exception()


async def until(condition: Callable[[], Any], **options: Any) -> Any:
    """As :func:`wait_until`, beside workers on the same loop."""
    return await asyncio.to_thread(wait_until, condition, **options)


def test_broken_documents_are_dead_letters_byte_for_byte_and_failed_documents(stream: Stream) -> None:
    stream.create_topics()
    broken: dict[bytes, tuple[bytes, str]] = {
        b"not-json": (b"this is not JSON", "json"),
        b"no-text": (b'{"title": "nothing to read"}', "schema"),
        b"wrong-type": (b'{"text": ["a", "list"]}', "schema"),
        b"two-megabytes": (dumps({"text": "Berlin " * 300_000}), "document-too-long"),
        b"invalid-utf-8": (b'{"text": "Z\xfcrich"}', "encoding"),
    }
    stream.start("all").wait_ready()
    sent = documents(95)
    stream.produce_documents(sent[:40])
    stream.produce((key, value) for key, (value, _) in broken.items())
    stream.produce([(None, b"no key, and not JSON")], partition=1)
    stream.produce_documents(sent[40:])
    stream.wait_tagged(101)
    tagged = {document["id"]: document for document in stream.tagged()}
    assert len(tagged) == 101
    assert_exact([document for document in tagged.values() if document["status"] != "failed"], sent)
    letters = {record.key: record for record in stream.read(Topic.DEAD_LETTERS)}
    assert set(letters) == {*broken, None}
    for key, (value, code) in broken.items():
        assert letters[key].value == value
        assert find(letters[key].headers, "el4ner-error-code") == code.encode()
        failed = tagged[key.decode()]
        assert (failed["status"], failed["entities"], failed["missing"]) == ("failed", [], [])
        assert (failed["error"]["stage"], failed["error"]["code"]) == ("extract", code)
    (nameless,) = [
        document for document in tagged.values() if document["id"].startswith(f"{stream.prefix}documents-1-")
    ]
    assert nameless["status"] == "failed"
    assert letters[None].value == b"no key, and not JSON"


async def test_nothing_is_committed_before_what_it_leads_to_is_delivered(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.create_topics()
    stream.produce_documents(documents(50))
    gate, entered = asyncio.Event(), asyncio.Event()
    send = StageApp.send

    async def held(app: StageApp, message: Any) -> asyncio.Future[Any]:
        delivery = await send(app, message)

        async def later() -> Any:
            entered.set()
            await gate.wait()
            return await delivery

        return asyncio.ensure_future(later())

    monkeypatch.setattr(StageApp, "send", held)
    async with serving(stream, "extract"):
        await asyncio.wait_for(entered.wait(), 30)
        # More than two commit intervals, with every batch worked on and sent, but no delivery known.
        await asyncio.sleep(2.5)
        assert await asyncio.to_thread(stream.committed, "extract") == {}
        gate.set()
        await until(lambda: sum(stream.committed("extract").values()) == 50, what="all committed")
    assert stream.ends(Topic.SPAN_CANDIDATES) == 50


async def test_a_delivery_that_fails_ends_the_worker_and_commits_nothing_of_it(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.create_topics()
    send = StageApp.send

    async def failing(app: StageApp, message: Any) -> asyncio.Future[Any]:
        if message.key == b"d-7":
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(ConnectionError("the broker is gone"))
            return failed
        return await send(app, message)

    stream.produce_documents(documents(20))
    with monkeypatch.context() as patched:
        patched.setattr(StageApp, "send", failing)
        async with serving(stream, "extract") as task:
            await asyncio.wait([task], timeout=30)
        with pytest.raises(WorkerCrashedError, match="the broker is gone"):
            task.result()
    assert sum(stream.committed("extract").values()) < 20
    async with serving(stream, "extract"):
        await until(lambda: sum(stream.committed("extract").values()) == 20, what="all committed")
    seen = {orjson.loads(record.value)["document"]["id"] for record in stream.read(Topic.SPAN_CANDIDATES)}
    assert seen == {f"d-{number}" for number in range(20)}


async def test_an_engine_that_fails_on_one_document_and_a_bug(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.create_topics()
    classify = Pipeline.classify

    def poisoned(self: Pipeline, batch: Any) -> Any:
        if any(item.document.id == "d-5" for item in batch):
            raise EngineError("boom")
        if any(item.document.id == "bug" for item in batch):
            raise KeyError("a bug")
        return classify(self, batch)

    monkeypatch.setattr(Pipeline, "classify", poisoned)
    sent = documents(10)
    stream.produce_documents(sent)
    async with serving(stream, *run.STAGES) as task:
        await until(lambda: stream.ends(Topic.TAGGED_DOCUMENTS) == 10, what="ten tagged documents")
        await asyncio.to_thread(stream.produce_documents, [{"id": "bug", "text": "Berlin"}])
        await asyncio.wait([task], timeout=30)
    with pytest.raises(WorkerCrashedError, match="a bug"):
        task.result()
    tagged = {document["id"]: document for document in stream.tagged()}
    poisoned_one = tagged.pop("d-5")
    assert (poisoned_one["status"], poisoned_one["error"]["code"]) == ("failed", "engine")
    assert_exact(list(tagged.values()), [document for document in sent if document["id"] != "d-5"])
    (letter,) = stream.read(Topic.DEAD_LETTERS)
    assert orjson.loads(letter.value)["document"]["id"] == "d-5"
    assert find(letter.headers, "el4ner-attempts") == b"2"
    # The bug was not acknowledged: without it, the document comes out.
    monkeypatch.setattr(Pipeline, "classify", classify)
    async with serving(stream, *run.STAGES):
        await until(lambda: stream.ends(Topic.TAGGED_DOCUMENTS) == 11, what="the eleventh")
    assert {document["id"] for document in stream.tagged()} == {"bug", *(document["id"] for document in sent)}


async def test_after_a_crash_only_what_is_not_in_the_output_yet_is_emitted(stream: Stream) -> None:
    """The changelog as a kill between two deliveries leaves it: some documents delivered, some not, none ``done``."""
    stream.create_topics()

    def interrupted(number: int) -> Mapping[str, Any]:
        tagged = {
            "id": f"d-{number}",
            "revision": 0,
            "text": "t",
            "pool": "news",
            "status": "complete",
            "entities": [],
            "manifests": {},
            "missing": [],
            "error": None,
        }
        partition = number % 4
        return {
            "v": 1,
            "phase": "emitting",
            "partition": 0,
            "revision": 0,
            "tagged": tagged,
            "output": partition,
            "floor": 0,
        }

    states = [interrupted(number) for number in range(20)]
    async with serving(stream, "aggregate"):
        pass
    names = {"changelog": changelog_name(stream.settings.kafka), "tagged": stream.name(Topic.TAGGED_DOCUMENTS)}
    for state in states[:12]:
        message = tagged_document(state["tagged"], partition=state["output"], trace=None, now_ms=0, random=bytes)
        send(stream, names["tagged"], message.key, message.value, message.partition, list(message.headers))
    for state in states:
        send(stream, names["changelog"], state["tagged"]["id"].encode(), dumps(state), 0, None)
    async with serving(stream, "aggregate"):
        assert sorted(document["id"] for document in stream.tagged()) == sorted(f"d-{number}" for number in range(20))
    ids = [find(record.headers, "ce_id") for record in stream.read(Topic.TAGGED_DOCUMENTS)]
    assert sorted(ids) == sorted(event_id_of(state["tagged"]).encode() for state in states)
    # It is settled: another start finds nothing to do, nor does a late part.
    async with serving(stream, "aggregate"):
        await asyncio.to_thread(stream.produce_documents, [{"id": "d-3", "text": "t"}])
        await until(lambda: sum(stream.committed("aggregate").values()) == 1, what="committed")
    assert stream.ends(Topic.TAGGED_DOCUMENTS) == 20


def send(stream: Stream, name: str, key: Any, value: Any, partition: Any, headers: Any) -> None:
    from kafka import KafkaProducer

    with contextlib.closing(KafkaProducer(bootstrap_servers=stream.bootstrap)) as producer:
        producer.send(name, key=key, value=value, partition=partition, headers=headers).get(timeout=10)


@pytest.mark.parametrize("stream", [{"worker": {"deadline_seconds": 1.0, "remember_seconds": 2.0}}], indirect=True)
def test_a_stage_that_does_not_answer_leaves_a_partial_document_at_the_deadline(stream: Stream) -> None:
    stream.create_topics()
    stream.start("extract", "classify", "aggregate").wait_ready()
    stream.produce_documents(documents(20))
    stream.wait_tagged(20, timeout=30)
    tagged = stream.tagged()
    assert {document["status"] for document in tagged} == {"partial"}
    assert {tuple(document["missing"]) for document in tagged} == {("validate",)}
    assert {document["error"]["code"] for document in tagged} == {"deadline"}
    assert any(document["entities"] for document in tagged)
    # Late answers change nothing; and finished documents are forgotten, so the changelog can be compacted.
    validate = stream.start("validate").wait_ready()
    wait_until(lambda: stream.ends(Topic.VALIDATION_VERDICTS) == 20, what="late answers")
    wait_until(lambda: forgotten(stream) >= 20, timeout=30, what="forgotten")
    assert stream.ends(Topic.TAGGED_DOCUMENTS) == 20
    assert validate.stop() == 0


def forgotten(stream: Stream) -> int:
    from kafka import TopicPartition

    with stream.consumer() as consumer:
        partitions = [TopicPartition(changelog_name(stream.settings.kafka), number) for number in range(4)]
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        gone = set()
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for records in consumer.poll(timeout_ms=200).values():
                gone.update(record.key for record in records if record.value is None)
    return len(gone)


def test_topics_that_do_not_fit_together_are_refused_with_names_and_counts(stream: Stream) -> None:
    from kafka.admin import KafkaAdminClient

    with contextlib.closing(KafkaAdminClient(bootstrap_servers=stream.bootstrap)) as admin:
        admin.create_topics({stream.name(Topic.TYPED_ENTITIES): {"num_partitions": 3, "replication_factor": 1}})
    worker = stream.start("aggregate")
    assert worker.process.wait(timeout=30) == 2
    assert "el4ner topics create" in worker.log.read_text()
    stream.create_topics()
    worker = stream.start("aggregate")
    assert worker.process.wait(timeout=30) == 2
    said = worker.log.read_text()
    for words in (stream.name(Topic.DOCUMENTS), "has 4", stream.name(Topic.TYPED_ENTITIES), "has 3"):
        assert words in said
    assert "Traceback" not in said


@pytest.mark.parametrize("stream", [{"kafka": {"bootstrap_servers": "127.0.0.1:1"}}], indirect=True)
def test_without_a_broker_the_worker_says_so(stream: Stream) -> None:
    worker = stream.start("aggregate")
    assert worker.process.wait(timeout=60) == 2
    assert worker.log.read_text().splitlines()[-1].startswith("no Kafka broker answers at 127.0.0.1:1")


async def test_health_is_progress(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.create_topics()
    settings = stream.settings.model_copy(
        update={"worker": stream.settings.worker.model_copy(update={"web_port": 0, "stall_seconds": 0.3})}
    )
    monkeypatch.setattr(stream, "settings", settings)
    ports: list[int] = []
    started = run.HealthServer.start

    async def noted(server: run.HealthServer) -> None:
        await started(server)
        ports.append(server.port)

    monkeypatch.setattr(run.HealthServer, "start", noted)
    gate = asyncio.Event()
    deliver = StageApp.deliver

    async def held(app: StageApp, messages: Any) -> Any:
        await gate.wait()
        return await deliver(app, messages)

    monkeypatch.setattr(StageApp, "deliver", held)

    async def health(path: str = "/healthz") -> tuple[int, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, body = (await reader.read()).split(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), orjson.loads(body)

    async with serving(stream, "extract"):
        assert (await health())[0] == 200
        assert (await health("/other"))[0] == 404
        await asyncio.to_thread(stream.produce_documents, documents(5))
        status, details = 200, {}
        for _ in range(100):
            status, details = await health()
            if status == 503:
                break
            await asyncio.sleep(0.1)
        assert status == 503
        assert details["stages"]["extract"]["stalled"]
        gate.set()
        for _ in range(100):
            status, details = await health()
            if status == 200 and details["stages"]["extract"]["documents"] == 5:
                break
            await asyncio.sleep(0.1)
        assert (status, details["stages"]["extract"]["documents"]) == (200, 5)
